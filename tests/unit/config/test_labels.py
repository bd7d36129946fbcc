"""The experiment, the tags and the note that a person gives."""

import pytest

from gen_models.core.errors import InputError
from pipelines.config.labels import parse_tags, require_labels
from pipelines.config.run import Run, Train
from pipelines.config.search import Search
from pipelines.config.serialization import dump_config, load_config, make_config, result_settings
from pipelines.store.journal import Labels

LABELS = {"tag": ["team=vision", "ticket=a=b"], "note": "# Why\nbecause", "experiment": "base"}


def test_tags_are_parsed_at_the_first_equals_sign() -> None:
    assert parse_tags(["team=vision", "ticket=a=b"]) == {"team": "vision", "ticket": "a=b"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("team", "NAME=VALUE"),
        ("team=", "NAME=VALUE"),
        ("=vision", "NAME=VALUE"),
        ("a,b=1", "letters, digits"),
        ("../a=1", "letters, digits"),
        ("a" * 251 + "=1", "at most 250"),
        ("a=" + "b" * 8001, "at most 8000 characters"),
        ("a=b\x07", "control characters"),
        ("mlflow.user=me", "another name"),
        ("version.torch=3", "another name"),
        ("search_id=x", "another name"),
    ],
)
def test_a_tag_that_mlflow_does_not_take_or_that_is_reserved_is_refused(
    text: str, expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        parse_tags([text])


def test_a_tag_is_given_once() -> None:
    with pytest.raises(InputError, match="each name once"):
        parse_tags(["a=1", "a=2"])


@pytest.mark.parametrize("note", ["", " \n", "a" * 4001, "a\x00b"])
def test_a_bad_note_is_refused(note: str) -> None:
    with pytest.raises(InputError, match="note = "):
        require_labels(None, (), note)


@pytest.mark.parametrize("name", ["", "a/b", "..", "a\nb", "a" * 300])
def test_a_bad_experiment_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="experiment = "):
        require_labels(name, (), None)


def test_labels_hold_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2hunter2")
    for labels in (
        ("of-hunter2hunter2", (), None),
        (None, ("a=hunter2hunter2",), None),
        (None, (), "by hunter2hunter2"),
    ):
        with pytest.raises(InputError, match="secret") as refused:
            require_labels(*labels)
        assert "hunter2hunter2" not in str(refused.value)


@pytest.mark.parametrize("kind", [Train, Search])
def test_labels_change_no_result_and_are_recorded(kind: type[Run]) -> None:
    plain, labelled = make_config(kind, "vae", {}), make_config(kind, "vae", LABELS)
    assert result_settings(plain) == result_settings(labelled)
    assert labelled.labels == Labels({"team": "vision", "ticket": "a=b"}, "# Why\nbecause")
    again = load_config(dump_config(labelled), "config.json")
    assert (again.experiment, again.labels) == ("base", labelled.labels)
