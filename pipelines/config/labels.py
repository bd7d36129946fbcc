"""Rules for how a person labels what is recorded: the experiment, the tags and the note of a run.
No result depends on them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from gen_models.core.errors import require
from pipelines.store.layout import require_name
from pipelines.store.secrets import require_no_secret

_MAX_TAG_NAME, _MAX_TAG_VALUE = 250, 8000
"""Characters that MLflow takes."""
_MAX_NOTE = 4000
"""Characters; MLflow takes 8,000 of a description, in which the best trials stand as well."""
_TAG_NAME = re.compile(r"[/\w.\- :]+")
"""What MLflow takes as the name of a tag."""
_RESERVED_PREFIXES = ("mlflow.", "test/", "version.")
_RESERVED = {
    *("kind", "search_id", "trial_id", "key", "family", "metric", "mode", "objectives", "seed"),
    *("features", "data_digest", "comparable", "settings", "best_settings", "rerun", "note"),
    *("confirms", "confirms_name", "confirms_search", "git_commit", "hostname", "device"),
    *("processor", "execution", "widest", "weights_digest", "checkpoint", "checkpoint_digest"),
    *("best_epoch", "outcome", "message", "ended_by", "pareto_front", "collapsed"),
    *("described", "description_digest", "previous_run_ids"),
}
"""Names of the tags that every run has of the pipeline itself."""


def is_own_tag(name: str) -> bool:
    """Return whether a tag of this name is one of the pipeline or of MLflow."""
    return name in _RESERVED or name.startswith(_RESERVED_PREFIXES)


def require_labels(experiment: str | None, tag: Sequence[str], note: str | None) -> None:
    """Raise `InputError` if MLflow does not take an experiment's name, a tag or a note, or if one
    has a secret. None: not given."""
    parse_tags(tag)
    if experiment is not None:
        require_name("experiment", experiment)  # its artifacts' folder has this name
    if note is not None:
        _require_note(note)


def parse_tags(texts: Sequence[str]) -> dict[str, str]:
    """Return the tags that texts of the form NAME=VALUE state. Raises `InputError` at one that
    MLflow does not take, and at a name of the pipeline's own tags.

    >>> parse_tags(["team=vision", "ticket=GEN-12"])
    {'team': 'vision', 'ticket': 'GEN-12'}
    """
    tags: dict[str, str] = {}
    for text in texts:
        require_no_secret("tag", text)
        name, _, value = text.partition("=")
        require(bool(name and value), "tag", text, "NAME=VALUE, such as team=vision")
        plain = f"a name of at most {_MAX_TAG_NAME} letters, digits, spaces and any of _ - . : /"
        is_name = _TAG_NAME.fullmatch(name) is not None and len(name) <= _MAX_TAG_NAME
        is_name = is_name and posixpath.normpath(name) == name and name[0] not in "./"
        require(is_name, "tag", text[: 2 * _MAX_TAG_NAME], plain)
        own = "another name, because the pipeline or MLflow records a tag of this one itself"
        require(not is_own_tag(name), "tag", name, own)
        most = f"at most {_MAX_TAG_VALUE} characters without control characters"
        is_value = len(value) <= _MAX_TAG_VALUE and value.isprintable()
        require(is_value, f"tag {name}", value[:_MAX_TAG_NAME], most)
        require(name not in tags, "tag", name, "each name once")
        tags[name] = value
    return tags


def _require_note(text: str) -> None:
    """Raise `InputError` if a note is empty, too long, or has control characters beside line
    breaks and tabs."""
    require_no_secret("note", text)
    printable = "".join(text.split("\n")).replace("\t", "").isprintable()
    expected = f"1 to {_MAX_NOTE} characters of Markdown without control characters"
    ok = bool(text.strip()) and len(text) <= _MAX_NOTE and printable
    require(ok, "note", text[:_MAX_TAG_NAME], expected)
