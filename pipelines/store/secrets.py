"""THE rule for secrets: none is written, printed, logged or sent as a tag.

A secret is the password of a URI, and the value of an environment variable whose name ends as in
`MLFLOW_TRACKING_PASSWORD`, `RAY_AUTH_TOKEN` or `AWS_SECRET_ACCESS_KEY`. `hide` takes the password
out of a URI where it enters the program, and this process alone remembers it: `reveal` returns it
to the client that connects. A URL for notices is a secret as a whole: `hide_notice_url` puts a
mark in its place, and `notice_url` returns it to the thread that posts. `redact` guards the ways
out: the files of a store (`pipelines.store.journal.as_json`), log messages, the streams of the
command line. Values of fewer than eight characters are left alone: they would also be parts of
ordinary words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cache
from typing import Any, TextIO
from urllib.parse import unquote, urlsplit

from gen_models.core.errors import require

MARK = "***"
"""What stands in place of a secret."""

_SECRET_NAME = re.compile(
    r"(TOKEN|PASSWORD|PASSWD|PASSPHRASE|SECRET|KEY|ACCESS_KEY_ID|CREDENTIALS|NOTIFY_URL)$"
)
_MIN_LENGTH = 8
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"]+")
# A port and a path may stand between the host's colon and an @ as well: http://host:5000/a@b.
_LOGIN = re.compile(r"(?P<before>://[^\s'\"/?#@:]*):(?!\d+([/?#]|$))[^\s'\"]*@")
_QUERY = re.compile(r"([?&][\w-]*(?:password|passwd|pwd|token|secret)=)[^&#\s'\"]+", re.I)

_given: dict[str, str] = {}
"""URIs with a password that this process was given, by their form without it."""


_NOTIFY_FLAG, _NOTIFY_VARIABLE = "--notify", "GENPIPE_NOTIFY_URL"
_URI_VARIABLES = ("GENPIPE_TRACKING_URI", "MLFLOW_TRACKING_URI")
_notice_urls: dict[str, str] = {}
"""URLs for notices that this process was given, by the marks that stand in their place."""


def hide_notice_url(url: str) -> str:
    """Return the mark that stands for a URL for notices, and remember the URL. A mark stays."""
    if url in _notice_urls:
        return url
    for mark, known in _notice_urls.items():
        if known == url:
            return mark
    mark = f"{MARK}{len(_notice_urls) + 1}"
    _notice_urls[mark] = url
    return mark


def hide_notice_urls(args: Sequence[str]) -> list[str]:
    """Return the arguments of a command with a mark in place of each URL for notices."""
    hidden = list(args)
    for index, word in enumerate(hidden):
        flag, equals, value = word.partition("=")
        if flag == _NOTIFY_FLAG and equals:
            hidden[index] = f"{flag}={hide_notice_url(value)}"
        elif index and hidden[index - 1] == _NOTIFY_FLAG and not word.startswith("-"):
            hidden[index] = hide_notice_url(word)
    return hidden


def notice_url(mark: str = "") -> str:
    """Return the URL for notices that a mark stands for; without one, the environment's
    GENPIPE_NOTIFY_URL, or ""."""
    return _notice_urls.get(mark, mark) or os.environ.get(_NOTIFY_VARIABLE, "")


def require_notice_url(mark: str) -> None:
    """Raise `InputError` if the URL for notices is no URL of http or https. It is not shown."""
    url = notice_url(mark)
    if not url:
        return
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
        is_url = is_url and parts.port != 0  # raises ValueError at what is no port
        is_url = is_url and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        is_url = False
    field = "notify" if mark else _NOTIFY_VARIABLE
    require(is_url, field, MARK, "a URL that begins with http:// or https:// and names a host")


def hide(text: str) -> str:
    """Return a URI without its password, or a text with such URIs. `reveal` knows them from now
    on."""

    def without_password(found: re.Match[str]) -> str:
        uri = found[0]
        hidden = _QUERY.sub(rf"\g<1>{MARK}", _LOGIN.sub(r"\g<before>@", uri))
        if hidden != uri:
            _given[hidden] = uri
        return hidden

    return _URI.sub(without_password, text)


def reveal(uri: str) -> str:
    """Return a URI with the password that this process was given for it: with the URI itself, or
    in the environment (`environment_uri`). Without one, MLflow's client reads
    MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, and PostgreSQL's reads PGPASSWORD."""
    hide(environment_uri())
    return _given.get(hide(uri), uri)


def environment_uri() -> str:
    """Return the tracking URI of the environment: GENPIPE_TRACKING_URI or MLFLOW_TRACKING_URI;
    "" without one."""
    return next((uri for name in _URI_VARIABLES if (uri := os.environ.get(name))), "")


def was_given_password(text: str) -> bool:
    """Return whether a text has a URI for which this process was given a password, or stands for a
    URL for notices."""
    hidden = hide(text)
    return hidden != text or any(known in text for known in (*_given, *_notice_urls))


def redact(text: str) -> str:
    """Return a text without secrets."""
    hidden = hide(text)
    for secret in _secrets():
        if secret in hidden:
            hidden = hidden.replace(secret, MARK)
    return hidden


def require_no_secret(field: str, name: str) -> None:
    """Raise `InputError` if a name or a path has a secret, which is then recorded nowhere: nothing
    would find what has that name."""
    shown = redact(name)
    expected = "a name without the value of an environment variable that holds a secret"
    require(shown == name, field, shown, expected)


def redacted(content: Any) -> Any:
    """Return plain values as JSON holds them, with every string redacted."""
    if isinstance(content, str):
        return redact(content)
    if isinstance(content, dict):
        return {redacted(name): redacted(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [redacted(value) for value in content]
    return content


class RedactedStream:
    """A text stream that redacts what is written to it, and is otherwise the stream `under` it."""

    def __init__(self, under: TextIO) -> None:
        self._under = under

    def write(self, text: str) -> int:
        """Write a text without its secrets; return its length."""
        self._under.write(redact(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write lines without their secrets."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._under, name)


def _secrets() -> list[str]:
    """Return the secrets of this process that a text may hold, the longest first."""
    named = (os.environ[name] for name in os.environ if _names_secret(name))
    values = [value for value in named if not os.path.exists(value)]  # MY_KEY may name a file
    for uri in _given.values():
        values += _passwords(uri)
    for url in (*_notice_urls.values(), os.environ.get(_NOTIFY_VARIABLE, "")):
        values += [url, url.partition("://")[2].partition("/")[2]]  # errors name its path alone
    return sorted({v for v in values if len(v) >= _MIN_LENGTH}, key=len, reverse=True)


@cache
def _names_secret(name: str) -> bool:
    """Return whether an environment variable of this name holds a secret."""
    return bool(_SECRET_NAME.search(name.upper()))


def _passwords(uri: str) -> list[str]:
    """Return a URI's password as it stands there, and decoded."""
    authority = re.split("[/?#]", uri.partition("://")[2])[0]  # urlsplit refuses http://a:b@[::1
    login = authority.rpartition("@")[0]
    password = login.partition(":")[2]
    return [password, unquote(password)]
