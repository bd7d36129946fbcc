"""The command that trains a config again: parsed, it means the same config."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.cli.parsing import given_settings, parse_run
from pipelines.config.command import rerun_command, resume_command
from pipelines.config.objectives import Objective
from pipelines.config.run import Run, Train, defaults
from pipelines.config.search import Search, SeedStudy, with_objectives
from pipelines.tuning.search import resolve_search


def parsed(run: Run) -> Run | None:
    """Return what the command of a config means."""
    program, command, *args = shlex.split(rerun_command(run))
    assert program == "genpipe"
    assert command == ("search" if isinstance(run, Search) else "train")
    return parse_run(type(run), command, args)


def test_the_command_of_a_run_means_the_same_config(train: Train) -> None:
    assert parsed(train) == train


def test_the_command_of_a_search_means_the_same_config(search: Search) -> None:
    assert parsed(search) == search


@pytest.mark.parametrize("kind", [Train, Search])
def test_defaults_are_not_repeated(kind: type[Run], family: str) -> None:
    run = defaults(kind, family)
    assert rerun_command(run) == f"genpipe {kind.__name__.lower()} {family}"
    assert parsed(run) == run


@pytest.mark.parametrize(
    "objectives",
    [
        [Objective("val/elbo", "max")],
        [Objective("val/elbo", "min")],
        [Objective("val/nll", "max")],
        [Objective("val/fd/lenet-digits/2k", "min"), Objective("val/kl", "max")],
        [Objective("val/nll", "min"), Objective("val/elbo", "max"), Objective("val/fd", "min")],
    ],
)
def test_it_repeats_the_objectives(objectives: list[Objective]) -> None:
    run = with_objectives(defaults(Search, "vae"), objectives)
    again = parsed(run)
    assert again == run and again is not None and list(again.objectives) == objectives


def test_it_repeats_settings_that_were_given_their_default(family: str) -> None:
    """They are not searched, and the command says so."""
    own = defaults(Search, family)
    left = [str(each) for each in own.searched if each.name != "model.latent_dim"]
    run = replace(own, space=("none", *left))
    words = shlex.split(rerun_command(run))
    assert "--model.latent-dim" in words and "--space" not in words
    again = parsed(run)
    assert again and resolve_search(again, given_settings(words)) == run


def test_it_repeats_a_space_of_one_s_own() -> None:
    own = defaults(Search, "vae")
    texts = ("seed=choice([1, 2]) if model.latent_dim == 4", "model.latent_dim=choice([4, 8])")
    run = replace(own, space=texts, require=("optim.lr < 0.005",))
    again = parsed(run)
    assert again == run and again is not None and "seed" in again.searched.by_name


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--no-drop-last", "drop_last"),
        ("--model.no-spectral-norm", "model.spectral_norm"),
        ("--model.latent-dim=4", "model.latent_dim"),
    ],
)
def test_a_flag_gives_a_setting(flag: str, name: str) -> None:
    assert name in given_settings(["gan", flag, "4"])
    assert given_settings(["gan", "4"]) == set()


def test_settings_of_where_it_runs_are_left_out() -> None:
    run = replace(
        defaults(Search, "vae"),
        store=Path("/s"),
        tracking_uri="sqlite:////x.db",
        address="ray://x",
        download=True,
        dry_run=True,
        json=True,
        resume="vae-1",
    )
    assert rerun_command(run) == "genpipe search vae"


def test_the_data_root_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENPIPE_DATA_ROOT", raising=False)
    run = replace(defaults(Train, "vae"), data_root=Path("elsewhere"))
    assert rerun_command(run) == f"genpipe train vae --data-root {tmp_path}/elsewhere"
    same = replace(run, data_root=tmp_path / "data")
    assert rerun_command(same) == "genpipe train vae"


def test_a_seed_study_is_a_confirm() -> None:
    study = SeedStudy(run="a b", name="a", search_id="", data_digest="d", value=1.0)
    run = replace(defaults(Search, "vae"), seed_study=study, trials=7)
    assert rerun_command(run) == "genpipe confirm 'a b' --seeds 7"


def test_the_command_that_resumes_a_run_means_the_same_run(train: Train) -> None:
    run = replace(train, store=Path("a store"), name="mine", address="head:6379")
    program, command, *args = shlex.split(resume_command(run))
    assert (program, command) == ("genpipe", "train")
    assert parse_run(Train, command, args) == run


def test_the_command_that_resumes_a_search_names_it(search: Search) -> None:
    run = replace(search, store=Path("/s"))
    expected = f"genpipe search {run.family} --resume search-1 --store /s"
    assert resume_command(run, "search-1") == expected
    study = SeedStudy(run="abc", name="x", search_id="", data_digest="d", value=None)
    run = replace(run, seed_study=study, address="head:6379")
    expected = "genpipe confirm abc --resume search-1 --store /s --address head:6379"
    assert resume_command(run, "search-1") == expected
