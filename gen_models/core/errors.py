"""The error for wrong input, which the user can correct; all other errors are bugs."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

MAX_SHOWN = 200
"""Characters of a value that a message shows."""


class InputError(ValueError):
    """Wrong input of the user.

    The message is complete in itself: it names the field or file, the value, and what would be
    right. The command line prints it without a traceback and exits with code 2.
    """


class DamagedError(InputError):
    """A file is not what was written: empty, cut short or changed. The message names it."""


def require(ok: bool, field: str, value: object, expected: str) -> None:
    """Raise `InputError` unless `ok`: `latent_dim = -3: expected an integer of at least 1`."""
    if not ok:
        raise InputError(f"{field} = {shown(value)}: expected {expected}")


def shown(value: object) -> str:
    """Return a value as a message shows it: in one line, at most `MAX_SHOWN` characters of it."""
    try:
        text = repr(value)
    except (RecursionError, ValueError) as error:  # nested too deep; an integer of 5,000 digits
        text = f"{type(value).__name__} that cannot be shown ({type(error).__name__})"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def require_sizes(latent_dim: int, hidden: Sequence[int], channels: int) -> None:
    """Check the sizes that every family's config has."""
    require(latent_dim >= 1, "latent_dim", latent_dim, "an integer of at least 1")
    require(bool(hidden) and min(hidden) >= 1, "hidden", hidden, "one width or more, from 1")
    require(channels >= 1, "channels", channels, "an integer of at least 1")


def shown_name(name: object) -> str:
    """Return a field's name, which may be a stranger's, as a message shows it."""
    is_plain = isinstance(name, str) and name.isprintable() and len(name) <= MAX_SHOWN
    return str(name) if is_plain else shown(name)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the hint ` (did you mean 'epochs'?)`, or "" if no known name is near."""
    near = get_close_matches(name[:MAX_SHOWN], list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
