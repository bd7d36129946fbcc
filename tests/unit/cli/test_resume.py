"""`genpipe search --resume`: a setting that is given is applied, or refused by name."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from support.pipeline import Capture, refused

from pipelines.cli.main import main
from pipelines.cli.parsing import parse_run
from pipelines.config.search import Search, SeedStudy
from pipelines.config.serialization import dump_config
from pipelines.store.layout import Store
from pipelines.tuning.search import resolve_search

STARTED = ["--trials", "5", "--epochs", "9", "--model.hidden", "32", "--optim.lr", "0.002"]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store in which two searches and a seed study were started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    place = Store.at("runs")
    _record(place, "one", STARTED)
    study = SeedStudy(run="abc", name="n", search_id="", data_digest="d", value=1.0)
    _record(place, "study", ["--trials", "3"], seed_study=study)
    yield place
    assert not ray.is_initialized()


def _record(store: Store, search_id: str, args: list[str], **changes: Any) -> None:
    run = parse_run(Search, "search", ["vae", *args])
    assert run
    resolved = resolve_search(run, {"optim.lr"} if "--optim.lr" in args else set())
    folder = store.search(search_id)
    content = json.loads(dump_config(resolved))
    for name, value in changes.items():
        content["config"][name] = vars(value)
    folder.files.write(folder.config, json.dumps(content))


def resumed(args: list[str], capsys: Capture) -> dict[str, Any]:
    """Return the config that a dry run of a resumed search prints."""
    assert main(["search", "vae", "--resume", "one", "--dry-run", "--json", *args]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def test_a_search_is_resumed_with_the_config_that_it_was_started_with(capsys: Capture) -> None:
    content = resumed([], capsys)
    assert (content["trials"], content["epochs"]) == (5, 9)
    assert content["model"]["hidden"] == [32] and content["optim"]["lr"] == 0.002
    assert not any("optim.lr" in each for each in content["space"]) and content["resume"] == "one"
    assert set(content["searched"]) == {"model.latent_dim", "model.kl_weight"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model.hidden", "64"], "model.hidden = (64,): expected (32,)"),
        (
            ["--model.latent-dim", "3"],
            "model.latent_dim = 3: expected none, because it is searched",
        ),
        (
            ["--model.latent-dim", "16"],
            "model.latent_dim = 16: expected none, because it is searched",
        ),
        (["--metric", "val/nll", "--metric", "val/fd"], "metric = val/nll (min), val/fd (min): "),
        (["--optim.lr", "0.1"], "optim.lr = 0.1: expected 0.002"),
        (["--seed", "1"], "seed = 1: expected 0"),
        (["--scheduler", "fifo"], "scheduler = 'fifo': expected None"),
        (["--no-drop-last"], "drop_last = False: expected True"),
        (["--binarise"], "binarise = True: expected False"),
        (["--data", "mnist"], "data = 'mnist': expected 'digits'"),
        (["--keep-checkpoints", "3"], "keep_checkpoints = 3: expected 1"),
        (["--metric", "val/elbo"], "metric = val/elbo (max): expected val/nll (min), as search"),
    ],
)
def test_a_setting_that_differs_is_refused_and_named(
    args: list[str], message: str, capsys: Capture
) -> None:
    text = refused(["search", "vae", "--resume", "one", *args], capsys)
    assert message in text and "a search keeps its settings when it is resumed" in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--trials", "4"], "trials = 4: expected at least 5, as search one was started"),
        (["--trials", "5", "--epochs=7"], "epochs = 7: expected at least 9, as search one"),
    ],
)
def test_a_search_is_given_more_and_never_less(
    args: list[str], message: str, capsys: Capture
) -> None:
    assert message in refused(["search", "vae", "--resume", "one", *args], capsys)


@pytest.mark.parametrize(
    "args",
    [
        ["--trials", "5"],
        ["--epochs", "9", "--model.hidden", "32"],
        ["--optim.lr", "0.002"],
        ["--drop-last"],
        STARTED,
    ],
)
def test_a_setting_that_is_the_same_is_accepted(args: list[str], capsys: Capture) -> None:
    assert resumed(args, capsys) == resumed([], capsys)


@pytest.mark.parametrize(
    ("args", "name", "value"),
    [
        (["--confirm", "2"], "confirm", 2),
        (["--confirm", "2", "--seeds", "4"], "seeds", 4),
        (["--tracking-uri", "sqlite:///x.db"], "tracking_uri", "sqlite:///x.db"),
        (["--data-root", "/elsewhere"], "data_root", "/elsewhere"),
        (["--download"], "download", True),
    ],
)
def test_a_setting_that_can_be_applied_is_taken(
    args: list[str], name: str, value: Any, capsys: Capture
) -> None:
    assert resumed([], capsys)[name] != value
    assert resumed(args, capsys)[name] == value


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["vae", "--resume", "two"], "resume = 'two': expected a search of "),
        (["gan", "--resume", "one"], "resume = 'one': expected a search of gan, and not of vae"),
        (["vae", "--resume", "study"], "resume = 'study': expected a search, and not a confirm"),
    ],
)
def test_a_search_that_is_not_there_is_named(
    args: list[str], message: str, capsys: Capture
) -> None:
    text = refused(["search", *args], capsys)
    assert message in text
    if "two" in args:
        assert "one, study" in text  # those that are there
