"""Checkpoints as MLflow models: logged and registered once, and the alias `champion`."""

import json
from pathlib import Path

import pytest
import torch
from support.journals import open_journal, write_epochs
from support.mlflow_runs import (
    Noise,
    close,
    deliver,
    deliver_claim,
    deliver_until_done,
    list_runs,
    load_noise,
    lose_answer,
    steps,
    write_noise,
    writer,
)

from pipelines.store.layout import Store
from pipelines.tracking.mlflow.connection import connect
from pipelines.tracking.mlflow.writer import MlflowWriter


def test_lost_answers_make_no_second_model(
    uri: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = [
        "log_artifacts",
        "create_logged_model",
        "log_model_artifacts",
        "finalize_logged_model",
        "log_outputs",
        "create_registered_model",
        "create_model_version",
        "set_registered_model_alias",
        "set_model_version_tag",
    ]
    for method in losses:
        lose_answer(monkeypatch, method)
    journal = open_journal(store.root / "runs/a")
    write_epochs(journal, 1, 2)
    close(
        journal,
        2,
        checkpoint=str(write_noise(store.root / "runs/a/best")),
        register="vae-digits",
        champion={"metric": "val/elbo", "mode": "max", "value": -1.0},
    )
    assert deliver_until_done(writer(uri, store), journal) == len(losses)

    client = connect(uri)
    [row] = list_runs(uri, store)
    run = client.get_run(row.run_id)
    assert steps(uri, row.run_id) == [1, 2]
    [model] = client.search_logged_models([run.info.experiment_id])
    assert model.status == "READY"
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    [version] = client.search_model_versions("name = 'vae-digits'")
    assert client.get_model_version_by_alias("vae-digits", "champion").version == version.version
    assert journal.delivered()["is_champion"]


def test_the_alias_goes_to_the_best_claim(uri: str, store: Store) -> None:
    """The rule itself is `pipelines.analysis.champion`'s, and is tested there."""
    assert deliver_claim(uri, store, "first", -20.0) == ("1", True)
    assert deliver_claim(uri, store, "worse", -30.0) == ("2", False)
    assert deliver_claim(uri, store, "better", -10.0) == ("3", True)
    fd = {"metric": "fd", "mode": "min"}
    assert deliver_claim(uri, store, "low", 5.0, digest="ffff", **fd) == ("4", True)
    assert deliver_claim(uri, store, "high", 6.0, digest="ffff", **fd) == ("5", False)

    client = connect(uri)
    old = store.run("better").journal
    (old.folder / "delivered.json").unlink()
    deliver(uri, store, old)  # an old claim is not made again
    held = client.get_registered_model("vae-digits").aliases
    aliases = {alias: str(number) for alias, number in held.items()}
    assert aliases.pop("champion") == "3"  # another metric on other data takes it from none
    assert sorted(aliases.values()) == ["3", "4"]  # each key has one of its own
    assert journal_alias(store, "better") == "champion"
    assert journal_alias(store, "low") in aliases and aliases[journal_alias(store, "low")] == "4"
    version = client.get_model_version("vae-digits", "4")
    expected = {"metric": "fd", "mode": "min", "value": "5.0", "data_digest": "ffff"}
    assert expected.items() <= version.tags.items()
    assert version.tags["search_id"] == "search-low" and version.tags["run_id"] == version.run_id
    assert "fd = 5.0 (min)" in version.description


def journal_alias(store: Store, name: str) -> str:
    return str(store.run(name).journal.delivered()["alias"])


SETTINGS = {
    "the same": ({}, "", True),
    "another likelihood": ({"model.likelihood": "gaussian"}, "", False),
    "conditional": ({"model.conditional": True}, "", False),
    "binary evaluation": ({"binarise": True}, "", False),
    "other data": ({}, "ffff", False),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_only_what_is_comparable_takes_the_alias(case: str, uri: str, store: Store) -> None:
    params, digest, is_comparable = SETTINGS[case]
    assert deliver_claim(uri, store, "first", -20.0) == ("1", True)
    more = {"digest": digest} if digest else {}
    assert deliver_claim(uri, store, "better", -10.0, params=params, **more) == ("2", True)
    client = connect(uri)
    champion = client.get_model_version_by_alias("vae-digits", "champion")
    assert str(champion.version) == ("2" if is_comparable else "1")
    alias = journal_alias(store, "better")
    assert (alias == "champion") is is_comparable and alias.startswith("champion")
    assert str(client.get_model_version_by_alias("vae-digits", alias).version) == "2"


def test_the_key_of_a_holder_that_an_older_version_registered_follows_from_its_run(
    uri: str, store: Store
) -> None:
    assert deliver_claim(uri, store, "old", -20.0) == ("1", True)
    client = connect(uri)
    client.delete_model_version_tag("vae-digits", "1", "comparable")
    for alias in client.get_registered_model("vae-digits").aliases:
        if alias != "champion":
            client.delete_registered_model_alias("vae-digits", alias)
    assert deliver_claim(uri, store, "worse", -30.0) == ("2", False)
    assert deliver_claim(uri, store, "better", -10.0) == ("3", True)
    other = {"model.likelihood": "gaussian"}
    assert deliver_claim(uri, store, "other", -1.0, params=other) == ("4", True)
    assert str(client.get_model_version_by_alias("vae-digits", "champion").version) == "3"


def test_a_mean_over_seeds_holds_the_alias_against_one_value(uri: str, store: Store) -> None:
    assert deliver_claim(uri, store, "lucky", -1.0) == ("1", True)
    assert deliver_claim(uri, store, "studied", -5.0, seeds=3) == ("2", True)
    assert deliver_claim(uri, store, "luckier", -0.5) == ("3", False)
    version = connect(uri).get_model_version("vae-digits", "2")
    assert version.tags["seeds"] == "3" and "the mean of 3 seeds" in str(version.description)


def test_a_model_carries_the_metrics_of_its_epoch(uri: str, store: Store) -> None:
    journal = open_journal(store.root / "runs/a")
    write_epochs(journal, 1, 2, 3)
    checkpoint = str(write_noise(store.root / "runs/a/best"))
    close(journal, 3, tags={"best_epoch": "2"}, checkpoint=checkpoint)
    run_id = deliver(uri, store, journal)
    client = connect(uri)
    model = client.get_logged_model(journal.delivered()["model_uri"].removeprefix("models:/"))
    linked = {metric.key: metric.value for metric in model.metrics}
    assert linked == {"train/loss": 0.5, "val/elbo": -2.0, "system/epoch": 2.0}
    assert model.source_run_id == run_id and model.params == {"model.latent_dim": "16"}
    assert model.model_type == "vae"
    assert client.get_run(run_id).info.status == "FINISHED"
    assert steps(uri, run_id) == [1, 2, 3]  # linking doubles no point
    copy = client.download_artifacts(run_id, "checkpoint", str(store.root))
    assert load_noise(Path(copy))[1] == 3


def test_a_model_s_page_shows_its_version_and_its_evaluation(uri: str, store: Store) -> None:
    assert deliver_claim(uri, store, "first", -20.0) == ("1", True)
    journal, client = store.run("first").journal, connect(uri)
    evaluation = store.evaluation(journal.delivered()["run_id"])
    evaluation.write(journal.delivered()["run_id"], {"test/elbo": -21.0}, {}, {})
    writer(uri, store).deliver_evaluation(evaluation)
    model_id = journal.delivered()["model_uri"].removeprefix("models:/")
    model = client.get_logged_model(model_id)
    assert json.loads(model.tags["mlflow.modelVersions"]) == [
        {"name": "vae-digits", "version": "1"}
    ]
    assert {m.key: m.value for m in model.metrics}["test/elbo"] == -21.0
    assert steps(uri, journal.delivered()["run_id"], "test/elbo") == [0]


def test_a_newer_checkpoint_makes_a_second_model(uri: str, store: Store) -> None:
    journal = open_journal(store.root / "runs/a")
    for epoch in (1, 2):
        write_epochs(journal, epoch)
        checkpoint = str(write_noise(store.root / "runs/a" / str(epoch), scale=epoch))
        close(journal, epoch, checkpoint=checkpoint, register="vae-digits")
        deliver(uri, store, journal)
        assert journal.delivered()["version"] == str(epoch)
        assert not journal.delivered()["is_champion"]


class Undecided(Noise):
    """A sampler that torch.export refuses: its control flow depends on data."""

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return super().forward(noise if float(noise.sum()) > 0.5 else -noise)


def test_a_failed_export_is_recorded_and_closes_its_run_all_the_same(
    uri: str, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    journal = open_journal(store.run("a").path)
    checkpoint = write_noise(store.root / "best")
    close(journal, 0, checkpoint=str(checkpoint), register="vae-digits")
    MlflowWriter(uri, store, lambda folder: (Undecided(), 3)).deliver(journal)
    client, delivered = connect(uri), journal.delivered()
    run = client.get_run(delivered["run_id"])
    assert delivered["model_error"] and "model_uri" not in delivered
    assert run.info.status == "FINISHED"
    assert run.data.tags["model_error"] == delivered["model_error"]
    assert f"{checkpoint}: the export as a model failed" in caplog.text
    assert not client.search_logged_models([run.info.experiment_id])
    assert not client.search_registered_models()
    assert client.list_artifacts(run.info.run_id, "checkpoint")

    # The next command tries again.
    MlflowWriter(uri, store, load_noise).deliver(journal)
    assert journal.delivered()["version"] == "1" and "model_error" not in journal.delivered()
    assert "model_error" not in client.get_run(run.info.run_id).data.tags
