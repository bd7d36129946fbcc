"""Secrets are left out of all that is written and printed."""

import io
import json
from pathlib import Path

import pytest

from gen_models.core.errors import InputError
from pipelines.config.command import rerun_command
from pipelines.config.run import Train, defaults
from pipelines.config.search import Search
from pipelines.config.serialization import (
    dump_config,
    load_config,
    make_config,
    result_settings,
)
from pipelines.store.journal import as_json
from pipelines.store.layout import Store
from pipelines.store.secrets import (
    RedactedStream,
    hide,
    hide_notice_url,
    hide_notice_urls,
    notice_url,
    redact,
    redacted,
    require_notice_url,
    reveal,
    was_given_password,
)


@pytest.mark.parametrize(
    ("uri", "hidden"),
    [
        ("postgresql://ada:x@y@db:5/m", "postgresql://ada@db:5/m"),
        ("http://ada:s3cret@host:5000", "http://ada@host:5000"),
        ("https://:s3cret@host/path", "https://@host/path"),
        ("http://ada:p%40ss%2Fword@host", "http://ada@host"),
        ("http://ada:12345@host", "http://ada@host"),
        ("http://ada:a/b?c#d@host", "http://ada@host"),
        ("mysql+pymysql://ada:s@db/m?charset=utf8", "mysql+pymysql://ada@db/m?charset=utf8"),
        ("postgresql://db/m?user=ada&password=s", "postgresql://db/m?user=ada&password=***"),
    ],
)
def test_the_password_of_a_uri(uri: str, hidden: str) -> None:
    assert hide(uri) == hidden and hide(hidden) == hidden
    assert reveal(hidden) == uri == reveal(uri)
    assert hide(f"API request to '{uri}' failed") == f"API request to '{hidden}' failed"
    assert hide(f"--tracking-uri={uri}") == f"--tracking-uri={hidden}"
    assert was_given_password(uri) and was_given_password(f"--tracking-uri={hidden}")


HOOK = "https://hooks.host.invalid/services/T0/B0/planted?k=1"


def test_a_url_for_notices_is_a_secret_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = hide_notice_url(HOOK)
    assert mark.startswith("***") and hide_notice_url(HOOK) == mark == hide_notice_url(mark)
    assert notice_url(mark) == HOOK
    assert redact(f"POST {HOOK} failed") == "POST *** failed"
    assert redact("no page /services/T0/B0/planted?k=1") == "no page /***"
    assert was_given_password(f"--notify={mark}")  # which a job of Ray would lack
    other = "https://other.invalid/environment-hook"
    assert hide_notice_url(other) != mark
    monkeypatch.setenv("GENPIPE_NOTIFY_URL", "https://third.invalid/third-hook")
    assert notice_url() == "https://third.invalid/third-hook" and notice_url(mark) == HOOK
    assert redact("at https://third.invalid/third-hook") == "at ***"


def test_a_url_for_notices_among_arguments() -> None:
    mark = hide_notice_url(HOOK)
    assert hide_notice_urls(["search", "--notify", HOOK, "--json"]) == [
        *("search", "--notify", mark, "--json")
    ]
    assert hide_notice_urls([f"--notify={HOOK}", "x"]) == [f"--notify={mark}", "x"]
    assert hide_notice_urls(["--notify"]) == ["--notify"]
    assert hide_notice_urls(["--notify", "--json"]) == ["--notify", "--json"]


def test_a_config_holds_no_url_for_notices() -> None:
    run = make_config(Search, "vae", {"notify": HOOK})
    assert run.notify == hide_notice_url(HOOK) and "planted" not in repr(run)
    text = dump_config(run)
    assert "notify" not in text and "planted" not in text
    assert "notify" not in rerun_command(run)
    assert "notify" not in result_settings(run)


@pytest.mark.parametrize("url", ["ftp://host/planted", "planted", "http://", "http://h:x/planted"])
def test_another_url_than_of_http_is_refused_and_not_shown(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        InputError, match=r"^notify = '\*\*\*': expected a URL that begins"
    ) as caught:
        make_config(Search, "vae", {"notify": url})
    assert "planted" not in str(caught.value)
    monkeypatch.setenv("GENPIPE_NOTIFY_URL", url)
    with pytest.raises(InputError, match=r"^GENPIPE_NOTIFY_URL = '\*\*\*': expected") as caught:
        require_notice_url("")
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "http://host:5000",
        "http://host:5000/a@b",
        "sqlite:////tmp/a:b@c/mlflow.db",
        "models:/vae-digits@champion",
        "vae-digits@champion",
        "https://ada@host",
        "http://other:8080/?page=2",
    ],
)
def test_what_holds_no_password(text: str) -> None:
    assert hide(text) == text == reveal(text) and not was_given_password(text)


def test_the_environment_s_uri_gives_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reveal("http://eve@elsewhere") == "http://eve@elsewhere"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://eve:pw-of-eve@elsewhere")
    assert reveal("http://eve@elsewhere") == "http://eve:pw-of-eve@elsewhere"


@pytest.mark.parametrize(
    "name",
    [
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_SESSION_TOKEN",
        "RAY_AUTH_TOKEN",
        "PGPASSWORD",
        "my_api_key",
        "CLIENT_SECRET",
    ],
)
def test_secrets_of_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "planted-secret")
    assert redact("refused: planted-secret!") == "refused: ***!"
    written = as_json({"tags": {"a": "x planted-secret"}, "list": ["planted-secret", 1]})
    assert json.loads(written) == {"tags": {"a": "x ***"}, "list": ["***", 1]}


def test_a_name_with_a_secret_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "planted-secret")
    for make in (
        lambda: Store.at("x/planted-secret"),
        lambda: Store.at("x").run("planted-secret"),
    ):
        with pytest.raises(
            InputError, match=r"\*\*\*': expected a name without the value"
        ) as caught:
            make()
        assert "planted" not in str(caught.value)


def test_a_key_that_names_a_file_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MY_API_KEY", str(tmp_path))
    assert Store.at(tmp_path / "store").root == tmp_path / "store"


def test_other_values_of_the_environment_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/home/ada/token")
    monkeypatch.setenv("SHORT_KEY", "digits")  # as in a data set's name
    text = "data digits, token in /home/ada/token"
    assert redact(text) == text
    assert redacted({"a": (1, 2.5, None, True)}) == {"a": [1, 2.5, None, True]}


def test_a_password_is_redacted_wherever_it_stands() -> None:
    hide("http://ada:correct%20horse@host")
    assert redact("login correct horse, correct%20horse") == "login ***, ***"


def test_a_stream_is_the_one_under_it_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "planted-secret")
    under = io.StringIO()
    stream = RedactedStream(under)
    assert stream.write("a planted-secret\n") == len("a planted-secret\n")
    stream.writelines(["http://ada:s@host\n"])
    stream.flush()
    assert under.getvalue() == "a ***\nhttp://ada@host\n" and not stream.isatty()


def test_a_config_holds_no_password_and_finds_it_again() -> None:
    uri = "http://ada:of-the-config@host:5000"
    run = Train(**{**vars(defaults(Train, "vae")), "tracking_uri": uri})
    assert run.tracking_uri == "http://ada@host:5000"
    text = dump_config(run)
    assert "of-the-config" not in text and "of-the-config" not in repr(run)
    again = load_config(text, "config.json")
    assert again.tracking_uri == "http://ada@host:5000" and reveal(again.tracking_uri) == uri
