"""A search and a run that are labelled, in MLflow and when they are resumed."""

from pathlib import Path

import pytest

import genpipe
from gen_models.core.errors import InputError
from pipelines.config.labels import is_own_tag
from pipelines.store.layout import Store
from pipelines.tracking.base import RunRow, find_backend, recorded_uri

pytestmark = pytest.mark.slow
SETTINGS = {"data": "digits", "epochs": 1, "features": "pca", "model": {"hidden": [8]}}


def rows(store: Path) -> list[RunRow]:
    place = Store.at(store)
    uri = recorded_uri(place)
    return find_backend(uri).reader(uri, place).list_runs()


def test_a_labelled_search_is_recorded_and_resumed(tmp_path: Path) -> None:
    labels = {"experiment": "base", "tag": ["team=vision"], "note": "# Why"}
    named = {"store": tmp_path, "name": "KL of 1, #2"}
    first = genpipe.search("vae", trials=2, grace_period=1, **named, **labels, **SETTINGS)
    assert first.search_id == named["name"]
    assert (first.experiment, first.registered_model) == ("base", "vae-digits")
    found = genpipe.runs(store=tmp_path, tag=["team=vision"], experiment="base").runs
    assert sorted(run.kind for run in found) == ["search", "trial", "trial"]
    assert {run.note for run in found} == {"# Why", ""}
    assert all(run.tags == {"team": "vision"} for run in found)
    assert genpipe.load("vae-digits@champion", store=tmp_path).family == "vae"
    own = {name for row in rows(tmp_path) for name in row.tags} - {"team"}
    assert all(map(is_own_tag, own)), own
    assert "# Why" in (tmp_path / "searches" / first.search_id / "report.html").read_text()

    assert genpipe.report(named["name"], store=tmp_path)
    genpipe.search("vae", tag=["team=audio"], note="# Second", **named)
    found = genpipe.runs(store=tmp_path, tag=["team=audio"]).runs
    assert len(found) == 3 and {run.note for run in found} == {"# Second", ""}
    with pytest.raises(InputError, match="experiment = 'other': expected 'base'"):
        genpipe.search("vae", experiment="other", **named)


def test_a_labelled_run_is_resumed(tmp_path: Path) -> None:
    settings = {"store": tmp_path, "name": "a", **SETTINGS}
    first = genpipe.train("vae", experiment="base", tag=["team=vision"], note="# Why", **settings)
    assert first.experiment == "base"
    assert genpipe.train("vae", note="# Second", **settings).experiment == "base"
    (run,) = genpipe.runs(store=tmp_path).runs
    assert (run.experiment, run.tags, run.note) == ("base", {"team": "vision"}, "# Second")
    with pytest.raises(InputError, match="experiment = 'other': expected base"):
        genpipe.train("vae", experiment="other", **settings)
