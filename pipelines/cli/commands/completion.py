"""Print the script with which a shell completes commands, flags and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from pipelines.cli.commands import names
from pipelines.cli.parsing import parse_settings

ORDER, USAGE = 30, "completion SHELL"

_BASH = """\
_genpipe() {
    local IFS=$'\\n'
    COMPREPLY=($(genpipe completion words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _genpipe genpipe
"""
_ZSH = """\
#compdef genpipe
_genpipe() {
    local -a found
    found=("${(@f)$(genpipe completion words "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[*]}" ]]; then compadd -a found; else _files; fi
}
compdef _genpipe genpipe
"""
_FISH = """\
function __genpipe
    set -l found (genpipe completion words (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)
    if test -n "$found"
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c genpipe -f -a '(__genpipe)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


@dataclass(frozen=True, kw_only=True)
class Completion:
    """Print the script with which a shell completes commands, families, flags, values and ids of
    searches: eval "$(genpipe completion bash)" in ~/.bashrc; eval "$(genpipe completion zsh)" in
    ~/.zshrc, after compinit; genpipe completion fish | source."""

    shell: Positional[Literal["bash", "zsh", "fish"]]
    """The shell."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    if args[:1] == ["words"]:  # as the scripts ask for them
        from pipelines.cli.completion import complete  # light: other commands need it not

        print("\n".join(complete(names(), args[1:])))
        return 0
    print(_SCRIPTS[parse_settings(Completion, "completion", args).shell], end="")
    return 0
