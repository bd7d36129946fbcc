"""The command line without Ray: input errors, `--help`, `--dry-run` and the command of a config.

Each case runs the whole command in this process, up to its error. None may start Ray.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.models import FAMILIES
from support.pipeline import ROOT, refused

from gen_models.core.config import flatten
from pipelines.cli.jobs.definition import read_job
from pipelines.cli.main import main
from pipelines.cli.parsing import parse_run
from pipelines.config.command import rerun_command
from pipelines.config.run import Train, defaults
from pipelines.config.search import Search
from pipelines.config.serialization import from_dict, to_dict

pytestmark = pytest.mark.usefixtures("no_ray")

WRONG = {
    "command": (["trian", "vae"], "unknown command 'trian' (did you mean 'train'?)"),
    "family": (["train", "vea"], "unknown family 'vea' (did you mean 'vae'?)"),
    "no family": (["search"], "FAMILY is missing: expected one of autoencoder, gan, vae"),
    "data": (["train", "vae", "--data", "mnits"], "mnits"),
    "flag": (["train", "vae", "--epoch", "3"], "Unrecognized options: --epoch"),
    "field": (["train", "vae", "--model.latent", "3"], "Unrecognized options: --model.latent"),
    "type": (["train", "vae", "--epochs", "many"], "--epochs"),
    "choice": (["train", "vae", "--model.arch", "rnn"], "mlp"),
    "latent": (["train", "vae", "--model.latent-dim", "-1"], "latent_dim = -1: expected an int"),
    "lr": (["train", "gan", "--optim.generator.lr", "0"], "lr = 0.0: expected a number above 0"),
    "infinite": (
        ["train", "vae", "--model.kl-weight", "inf"],
        "model.kl_weight = inf: expected a",
    ),
    "no number": (["train", "vae", "--optim.eps", "nan"], "eps = nan: expected"),
    "infinite, searched": (
        ["search", "gan", "--optim.generator.decay-epochs", "inf"],
        "optim.generator.decay_epochs = inf: expected a finite number",
    ),
    "epochs": (["train", "vae", "--epochs", "0"], "epochs = 0: expected an integer of at least 1"),
    "trials": (["search", "vae", "--trials", "0"], "trials = 0: expected an integer of at least"),
    "grace": (["search", "vae", "--epochs", "2"], "grace_period = 3: expected from 1 to 2"),
    "fuse": (["search", "vae", "--fuse", "0"], "fuse = 0: expected auto, off, or an integer"),
    "fused workers": (
        ["search", "vae", "--fuse", "2", "--num-workers", "2"],
        "fuse = 2: expected auto or off",
    ),
    "pbt": (
        ["search", "vae", "--scheduler", "pbt", "--fuse", "off"],
        "scheduler = 'pbt': expected asha",
    ),
    "pbt searcher": (
        ["search", "vae", "--scheduler", "pbt", "--searcher", "tpe"],
        "searcher = 'tpe': expected random, grid or qmc",
    ),
    "batch": (
        ["train", "vae", "--batch-size", "5000"],
        "batch_size = 5000: expected at most 1249",
    ),
    "share": (["train", "vae", "--num-workers", "3"], "batch_size = 128: expected a multiple"),
    "group": (
        ["train", "gan", "--model.pac", "3", "--batch-size", "64"],
        "batch_size = 64: expected a multiple of 3, because the model takes 3 rows together",
    ),
    "last group": (
        ["train", "gan", "--model.minibatch-std", "4", "--no-drop-last"],
        "drop_last = False: expected True, because the last batch has 97 rows",
    ),
    "points": (
        ["train", "gan", "--data", "ring8"],
        "arch = 'conv': expected mlp, because the data have shape (2,)",
    ),
    "workers": (
        ["train", "vae", "--num-workers", "512", "--batch-size", "512"],
        "num_workers = 512: expected at most",
    ),
    "features": (
        ["train", "gan", "--data", "ring8", "--model.arch", "mlp", "--features", "inception"],
        "features = 'inception': expected one of auto, pca, because ring8 holds no images",
    ),
    "classes": (
        ["search", "gan", "--data", "ring8", "--model.arch", "mlp", "--features", "lenet"],
        "features = 'lenet': expected one of auto, pca, because ring8 holds no labelled images",
    ),
    "space of a metric": (
        ["train", "gan", "--features", "pca", "--metric", "val/fd/lenet-digits/2k"],
        "expected one of val/fd/pca-digits/2k",
    ),
    "metric": (
        ["train", "vae", "--metric", "val/accuracy", "--mode", "max"],
        "metric = 'val/accuracy': expected one of val/elbo, val/kl",
    ),
    "second metric": (
        ["search", "vae", "--metric", "val/elbo", "--metric", "val/recall"],
        "metric = 'val/recall': expected one of val/elbo, val/kl",
    ),
    "no mode": (
        ["search", "vae", "--metric", "val/kl"],
        "metric = 'val/kl': expected one whose name says what is good, as val/nll, or --mode min",
    ),
    "mode": (["train", "vae", "--mode", "least"], "mode = 'least': expected min or max"),
    "fewer modes": (
        ["search", "vae", "--metric", "val/elbo", "--metric", "val/fd", "--mode", "max"],
        "mode = 'max': expected none, or one for each --metric, 2",
    ),
    "metric of nothing": (["search", "vae", "--metric"], "--metric: expected one argument"),
    "metric twice": (
        ["search", "vae", "--metric", "val/fd", "--metric", "val/fd"],
        "metric = 'val/fd val/fd': expected each metric once",
    ),
    "metric in full again": (
        ["search", "vae", "--metric", "val/fd", "--metric", "val/fd/lenet-digits/2k"],
        "val/fd/lenet-digits/2k val/fd/lenet-digits/2k': expected each metric once",
    ),
    "train by two": (
        ["train", "vae", "--metric", "val/elbo", "--metric", "val/fd"],
        "metric = 'val/elbo val/fd': expected one, because only a search takes several",
    ),
    "confirm by two": (
        ["search", "vae", "--metric", "val/elbo", "--metric", "val/fd", "--confirm", "1"],
        "confirm = 1: expected 0 with several metrics",
    ),
    **{
        f"{flag} {value}": (["search", "vae", f"--{flag}", value], f"{field} = {shown}: expected")
        for flag, field, value, shown in (
            ("max-hours", "max_hours", "0", "0.0"),
            ("max-hours", "max_hours", "-1", "-1.0"),
            ("max-hours", "max_hours", "nan", "nan"),
            ("max-device-hours", "max_device_hours", "0", "0.0"),
            ("max-device-hours", "max_device_hours", "inf", "inf"),
            ("stop-when-flat", "stop_when_flat", "0", "0"),
        )
    },
    "flat text": (["search", "vae", "--stop-when-flat", "often"], "--stop-when-flat"),
    **{
        f"notify {number}": (
            ["search", "vae", *given],
            "notify = '***': expected a URL that begins with http:// or https:// and names a host",
        )
        for number, given in enumerate(
            (
                ["--notify", "ftp://host/planted"],
                ["--notify=planted"],
                ["--notify", "file:///etc/planted"],
                ["--notify", "http://"],
                ["--notify", "https://host:x/planted"],
                ["--notify", "http://ho st/planted"],
            )
        )
    },
    "stop what": (["stop"], "Missing from genpipe stop"),
    "stop nothing": (["stop", "x"], "search = 'x': expected a search or a run of"),
    "stop a path": (["stop", "a/b"], "search_id = 'a/b': expected a name of at most"),
    "status of nothing": (["status", "x"], "search = 'x': expected a search or a run of"),
    "status nowhere": (["status", "--store", "empty"], "expected a folder in which runs are"),
    "watch": (["status", "--watch", "0"], "watch = 0.0: expected a number of seconds above 0"),
    "root": (["train", "vae", "--data", "mnist", "--data-root", "nowhere"], "--download"),
    "resume": (["search", "vae", "--resume", "vae-1"], "resume = 'vae-1': expected a search of"),
    "resume nothing": (["search", "vae", "--resume", ""], "resume = '': expected the name of a"),
    "name nothing": (["search", "vae", "--name", ""], "name = '': expected the name of a search"),
    "grid": (
        ["search", "vae", "--searcher", "grid", "--grid-points", "9999", "--dry-run"],
        "grid_points = 9999: expected fewer: the grid would have",
    ),
    "large grid": (
        ["search", "vae", "--searcher", "grid", "--grid-points", "100001", "--dry-run"],
        "grid_points = 100001: expected at most 100,000",
    ),
    "empty grid": (
        [
            *["search", "vae", "--searcher", "grid", "--dry-run"],
            *["--require", "model.latent_dim <= 0"],
        ],
        "require = 'model.latent_dim <= 0': expected conditions that a point of the grid",
    ),
    "save to a folder": (["search", "vae", "--save", "/"], "save = '/': expected the path of a"),
    "save where nobody may": (["search", "vae", "--save", "/dev/null/x"], "Not a directory"),
    "all given": (
        [
            *["search", "vae", "--model.latent-dim", "4", "--model.kl-weight", "1"],
            *["--optim.lr", "0.001"],
        ],
        "every setting of the space was given",
    ),
    "confirm": (["search", "vae", "--confirm", "-1"], "confirm = -1: expected an integer of at"),
    "confirm seeds": (["search", "vae", "--seeds", "1"], "seeds = 1: expected an integer of at"),
    "confirm pbt": (
        ["search", "vae", "--confirm", "2", "--scheduler", "pbt"],
        "confirm = 2: expected 0 with pbt",
    ),
    "seeds": (["confirm", "x", "--seeds", "1"], "seeds = 1: expected an integer of at least 2"),
    "confirm what": (["confirm", "x", "--store", "empty"], "expected a folder in which runs are"),
    "uri": (["train", "vae", "--tracking-uri", "mlruns"], "tracking_uri = 'mlruns': expected"),
    "server": (
        ["train", "vae", "--tracking-uri", "http://127.0.0.1:9"],
        "http://127.0.0.1:9",
    ),
    "out": (["sample", "x", "--out", "x.gif"], "out = 'x.gif': expected a file name ending in"),
    "nothing recorded": (["runs", "--store", "empty"], "expected a folder in which runs are"),
    "port": (["browse", "--port", "99999"], "port = 99999: expected a number from 1 to 65535"),
    "submit nothing": (["submit"], "no command to submit"),
    "submit what": (["submit", "--", "runs"], "cannot submit 'runs'"),
    "submit wrong": (["submit", "--", "search", "vae", "--trials", "0"], "trials = 0"),
    **{
        f"submit as {job_id[:9]!r}": (
            ["submit", "--submission-id", job_id, "--", "search", "vae", "--store", "/shared"],
            f"submission_id = {job_id[:50]!r}"[:-1],
        )
        for job_id in ("", "two words", "a/b", "..", "ü", "a\n", "a" * 5000)
    },
    **{
        f"submit to {url}": (
            ["submit", "--address", url, "--", "search", "vae", "--store", "/shared"],
            f"address = '{url}': expected the dashboard's URL",
        )
        for url in ("http://[::1", "http://h:99999", "http://h:x", "http://", "ray://h:1")
    },
    "submit default store": (
        ["submit", "--", "search", "vae"],
        "store = 'runs': expected the",
    ),
    "submit relative store": (
        ["submit", "--", "confirm", "x", "--store", "../there"],
        "store = '../there': expected the absolute path of a folder that every node mounts",
    ),
    "submit relative database": (
        [*("submit", "--", "train", "vae", "--store", "/shared"), "--tracking-uri=sqlite:///a.db"],
        "tracking_uri = 'sqlite:///a.db': expected a server, or a database with an absolute path",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_named(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    args, expected = WRONG[case]
    said = refused(args, capsys)
    assert expected in said
    assert "planted" not in said  # of a URL for notices
    assert not list(Path().glob("runs/*/*"))  # nothing half-written


def test_a_url_for_notices_is_shown_and_recorded_nowhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = "https://hooks.host.invalid/services/planted"
    for given in (["--notify", url], [f"--notify={url}"]):
        assert main(["search", "vae", *given, "--dry-run", "--json"]) == 0
        said = capsys.readouterr().out
        assert "planted" not in said and "hooks" not in said
        content = json.loads(said)
        assert content["notify"].startswith("***") and "notify" not in content["command"]
        assert "Unrecognized options: --notifi" in refused(
            ["search", "vae", *given, "--notifi", "x"], capsys
        )


def test_a_gpu_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    said = refused(["train", "vae", "--device", "cuda"], capsys)
    assert "device = 'cuda': expected cpu or auto" in said


def test_a_store_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("")
    said = refused(["train", "vae", "--store", "file/runs"], capsys)
    assert "store = " in said and "expected a writable folder" in said


def test_a_truncated_mnist_file(capsys: pytest.CaptureFixture[str]) -> None:
    raw = Path("data/MNIST/raw")
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"\x00\x00\x08\x03\x00\x00")
    assert "ubyte" in refused(["train", "vae", "--data", "mnist"], capsys)


def test_an_unreadable_image(capsys: pytest.CaptureFixture[str]) -> None:
    Path("pictures/a").mkdir(parents=True)
    for index in range(30):
        Image.new("L", (16, 16), index).save(f"pictures/a/{index:02d}.png")
    Path("pictures/a/07.png").write_bytes(b"not a picture")
    assert "07.png" in refused(["train", "vae", "--data", "folder:pictures"], capsys)


def test_an_npz_of_floats(capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("images.npz", images=np.zeros((30, 8, 8)))
    said = refused(["train", "vae", "--data", "npz:images.npz"], capsys)
    assert "uint8" in said and "float64" in said


def test_a_model_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    import mlflow

    Path("runs").mkdir()
    mlflow.MlflowClient(f"sqlite:///{Path('runs').absolute()}/mlflow.db").search_experiments()
    for model in ("vae-digits@champion", "models:/vae/1", "a" * 32, "no-such-run"):
        for asked in ("sample", "confirm"):
            said = refused([asked, model], capsys)
            assert model.split("@")[0].removeprefix("models:/").split("/")[0] in said


HEAVY = {"torch", "ray", "mlflow", "numpy", "optuna", "sklearn", "sqlalchemy"}
"""Packages whose imports take a tenth of a second or more."""


@pytest.mark.parametrize(
    ("args", "code", "expected"),
    [
        (["--help"], 0, "search FAMILY"),
        (["serach", "vae"], 2, "did you mean 'search'?"),
        *((["search", family, "--help"], 0, "--model.latent-dim INT") for family in FAMILIES),
        (["train", "vae", "--help"], 0, "--optim.lr FLOAT"),
        (["search", "vae", "--trails", "3"], 2, "--trials INT"),
        (["search", "vae", "--model.latent-dim", "0"], 2, "latent_dim = 0: expected"),
        (["search", "vae", "--space", "optim.lr=uniform(1)"], 2, "2 arguments"),
        (["train", "gan", "--optim.generator.lr", "x"], 2, "--optim.generator.lr"),
        (["runs", "--nmu", "3"], 2, "--num"),
    ],
)
def test_help_and_mistakes_are_answered_without_heavy_imports(
    args: list[str], code: int, expected: str
) -> None:
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipelines", *args],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    timed = [line for line in ran.stderr.splitlines() if line.startswith("import time:")]
    said = [line for line in ran.stderr.splitlines() if line not in timed]
    assert ran.returncode == code and expected in "\n".join([ran.stdout, *said])
    imported = {line.split("|")[-1].strip() for line in timed}
    assert not imported & HEAVY
    assert args != ["--help"] or "tyro" not in imported


@pytest.mark.parametrize("kind", ["train", "search"])
@pytest.mark.parametrize("family", FAMILIES)
def test_help_names_every_setting(
    kind: str, family: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([kind, family, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    settings = flatten(to_dict(defaults(Train if kind == "train" else Search, family)))
    for name in settings.keys() - {"family", "seed_study", "further"}:
        assert f"--{name.replace('_', '-')}" in text


@pytest.mark.parametrize("family", FAMILIES)
def test_the_printed_command_means_the_same_config(family: str) -> None:
    args = [
        "--epochs",
        "7",
        "--no-drop-last",
        "--binarise",
        "--model.latent-dim",
        "5",
        "--model.hidden",
        "9",
        "8",
    ]
    run = parse_run(Train, "train", [family, *args])
    assert run is not None
    words = rerun_command(run).split()
    assert words[:3] == ["genpipe", "train", family]
    assert parse_run(Train, "train", words[2:]) == run


FD = "val/fd/lenet-digits/2k"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["autoencoder"], [("val/squared_error", "min")]),
        (["autoencoder", "--mode", "max"], [("val/squared_error", "max")]),
        (["vae", "--metric", "val/fd"], [("val/fd", "min")]),
        (["gan", "--metric", FD, "--mode", "max"], [(FD, "max")]),
        (["autoencoder", "--metric=val/squared_error"], [("val/squared_error", "min")]),
        (
            ["gan", "--metric", "val/nll", "--metric=val/elbo"],
            [("val/nll", "min"), ("val/elbo", "max")],
        ),
        (
            ["vae", "--mode=min", "--metric", "val/elbo", "--mode", "max", "--metric", "val/kl"],
            [("val/elbo", "min"), ("val/kl", "max")],
        ),
    ],
)
def test_a_metric_has_the_mode_that_it_is_given_or_known_by(
    args: list[str], expected: list[tuple[str, str]]
) -> None:
    run = parse_run(Search, "search", args)
    assert run and [(each.metric, each.mode) for each in run.objectives] == expected
    assert (run.metric, run.mode) == expected[0]
    assert run.chosen_scheduler == ("asha" if len(expected) == 1 else "fifo")
    # The recorded command, and what is sent to workers, mean the same.
    again = parse_run(Search, "search", rerun_command(run).split()[2:])
    assert again == run == from_dict(Search, json.loads(json.dumps(to_dict(run))))


def test_dry_run_prints_the_config_and_stops(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "vae", "--optim.lr", "0.002", "--dry-run", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["optim"]["lr"] == 0.002
    assert set(content["searched"]) == {"model.latent_dim", "model.kl_weight"}
    assert "--optim.lr 0.002" in content["command"]
    assert not Path("runs").exists()


DRY = {
    "search": ["search", "vae", "--optim.lr", "0.002", "--trials", "5", "--searcher", "qmc"],
    "grid": ["search", "gan", "--searcher", "grid", "--grid-points", "2", "--epochs", "7"],
    "front": ["search", "vae", "--metric", "val/elbo", "--metric", "val/fd", "--num-workers", "2"],
    "train": ["train", "autoencoder", "--name", "mine", "--model.hidden", "9", "8", "--binarise"],
}


@pytest.mark.parametrize("case", DRY)
def test_dry_run_prints_a_job_file_that_means_the_same(
    case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it prints, run again, is what it resolved: with the metric's full name, absolute paths
    and every choice made."""
    assert main([*DRY[case], "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert main([*DRY[case], "--dry-run", "--json"]) == 0
    resolved = json.loads(capsys.readouterr().out)
    assert text.startswith("# Run it with `genpipe run`") and "digest" in text
    assert resolved.pop("command") in text
    Path("job.yaml").write_text(text)
    job = read_job(Path("job.yaml"))
    again = to_dict(job.stages[0].settings(job.shared, {}))
    again["data_root"] = str(Path(again["data_root"]).absolute())
    ignored = {"dry_run", "json", "searched", "fusion", "command"}
    for name in resolved.keys() - ignored:
        assert json.loads(json.dumps(again[name])) == resolved[name], name
    assert sorted(path.name for path in Path().iterdir()) == ["job.yaml"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--metric", "val/strange", "--mode", "min"], "metric = 'val/strange': expected one of"),
        (["--data", "mnist", "--data-root", "nowhere"], "--download"),
        (["--data", "npz:none.npz"], "data = 'npz:none.npz': does not exist"),
        (["--batch-size", "5000"], "batch_size = 5000: expected at most 1249"),
        (["--tracking-uri", "mlruns"], "tracking_uri = 'mlruns': expected"),
        (["--tracking-uri", "http://127.0.0.1:9"], "http://127.0.0.1:9 does not answer"),
        (["--store", "file/runs"], "expected a writable folder"),
    ],
)
@pytest.mark.parametrize("kind", ["train", "search"])
def test_a_dry_run_refuses_what_a_run_refuses_and_writes_nothing(
    kind: str, args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("")
    assert message in refused([kind, "vae", *args, "--dry-run"], capsys)
    assert [path.name for path in Path().iterdir()] == ["file"]


def fusion(args: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["search", "vae", "--dry-run", "--json", "--device", "cpu", *args]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["fusion"]
    return found


def test_dry_run_says_how_trials_are_fused(capsys: pytest.CaptureFixture[str]) -> None:
    found = fusion(["--trials", "3", "--fuse", "2"], capsys)
    assert found["fused"] and found["devices"] == "CPU cores"
    assert found["trials_at_once"] == found["fused_workers"] * found["trials_per_worker"] >= 1
    assert found["trials_per_worker"] <= 2 and found["kept_apart_by"] == []
    assert fusion(["--model.free-bits", "0.1"], capsys)["kept_apart_by"] == ["model.latent_dim"]
    assert fusion(["--fuse", "off"], capsys) == {"fused": False, "why": "--fuse off"}
    assert fusion(["--num-workers", "2"], capsys)["why"] == "2 workers a trial"
    grid = ["--searcher", "grid", "--grid-points", "4", "--model.latent-dim", "3"]
    assert fusion(grid, capsys)["trials"] == 16


def test_more_trials_than_memory_holds(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(["search", "vae", "--fuse", "100000000"], capsys)
    assert re.search(r"fuse = 100000000: expected at most \d+: a trial takes some \d+ MiB", said)
    assert not list(Path().glob("runs/*/*"))
