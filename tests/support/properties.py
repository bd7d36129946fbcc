"""Properties of whatever reads what others may have written: any input is read, or refused by an
`InputError`. Each is a strategy of inputs, most of them near a good one, and a check."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.files import MemoryFiles
from support.journals import run_info
from support.models import make_learner

from gen_models.core.checkpoint import load_checkpoint, restore_learner, save_checkpoint
from gen_models.core.checksums import SUMS_FILE
from gen_models.core.errors import InputError
from gen_models.training.learner import Learner
from pipelines.analysis.champion import Claim
from pipelines.catalog import runs
from pipelines.cli.jobs.definition import make_job
from pipelines.config.run import Train, defaults
from pipelines.config.search import Search
from pipelines.config.serialization import config_from_params, dump_config, load_config
from pipelines.config.yaml_text import parse_yaml
from pipelines.data import load
from pipelines.data.source import ReadRequest
from pipelines.data.sources import published
from pipelines.store.journal import EvaluationJournal, Journal, Outcome
from pipelines.store.layout import RunFolder
from pipelines.store.scan import JournalCache
from pipelines.tracking.base import RunRow

Check = Callable[[Any], None]
SECONDS = 30
"""That an input may take, on a machine that is busy with other things."""


class Property(NamedTuple):
    inputs: st.SearchStrategy[Any]
    check: Check


def check_property(name: str, num: int) -> None:
    """Check a property of `PROPERTIES` with `num` inputs."""
    inputs, check = PROPERTIES[name]

    @settings(
        max_examples=num,
        deadline=timedelta(seconds=SECONDS),
        database=None,
        derandomize=True,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def holds(value: Any) -> None:
        try:
            check(value)
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 3000

    holds()


# -- inputs ---------------------------------------------------------------------------------------
NUMBERS = st.one_of(
    st.integers(-3, 300),
    st.sampled_from([2**31, 2**63, -(2**63), 10**30, 10**400]),
    st.floats(),
)
TEXTS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["", "../../x", "a\nb", "[" * 2000, "nan", "1e999", "__import__('os')", "'"]),
)
SCALARS = st.one_of(NUMBERS, TEXTS, st.booleans(), st.none())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=4,
)
WHERE = st.integers(0, 10_000)
EDITS = st.lists(
    st.tuples(WHERE, st.sampled_from(["set", "set", "drop", "add"]), VALUES), max_size=3
)
"""Edits of nested mappings and lists: a place, what is done there, and a value."""
DAMAGE = st.lists(
    st.tuples(st.integers(0, 1 << 30), st.sampled_from("xxxcid"), st.binary(max_size=4)),
    min_size=1,
    max_size=3,
)
"""Damage of bytes: a place, what is done there (other bytes, cut, insert, delete), and bytes."""


def edited(content: Any, edits: list[tuple[int, str, Any]]) -> Any:
    """Return nested content with edits."""
    content = json.loads(json.dumps(content))
    for where, action, value in edits:
        places = list(_places(content))
        if not places:
            return value
        above, key = places[where % len(places)]
        if action == "set":
            above[key] = value
        elif action == "drop":
            del above[key]
        elif isinstance(above, dict):
            above[str(value)[:20]] = value
        else:
            above.append(value)
    return content


def _places(content: Any) -> Any:
    """Yield every place within nested content: the mapping or list, and the key in it."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in list(items):
        yield content, key
        if isinstance(value, dict | list):
            yield from _places(value)


def damaged(content: bytes, damage: list[tuple[int, str, bytes]]) -> bytes:
    """Return bytes with damage."""
    for where, action, other in damage:
        at = where % (len(content) + 1)
        if action == "x":
            content = content[:at] + other + content[at + len(other) :]
        elif action == "c":
            content = content[:at]
        elif action == "i":
            content = content[:at] + other + content[at:]
        else:
            content = content[:at] + content[at + len(other) :]
    return content


JSONS = st.one_of(st.tuples(st.just("edit"), EDITS), st.tuples(st.just("damage"), DAMAGE))
"""A JSON file that is edited, or damaged."""


def json_file(content: Any, change: tuple[str, Any]) -> bytes:
    kind, how = change
    if kind == "edit":
        return json.dumps(edited(content, how)).encode()
    return damaged(json.dumps(content).encode(), how)


@cache
def scratch() -> Path:
    """A folder in memory, if this machine has one, for the files of this process."""
    shared = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="genpipe-", dir=shared if shared.is_dir() else None))


# -- config.json ----------------------------------------------------------------------------------
CONFIGS = [
    json.loads(dump_config(defaults(Train, "vae"))),
    json.loads(dump_config(defaults(Search, "gan"))),
]


def read_config(value: tuple[int, tuple[str, Any]]) -> None:
    which, change = value
    run = load_config(json_file(CONFIGS[which], change), "config.json")
    assert load_config(dump_config(run), "config.json") == run


# -- job files ------------------------------------------------------------------------------------
JOBS = [
    {"command": "search", "family": "gan", "trials": 3, "optim": {"generator": {"lr": 1e-3}}},
    {
        "job": "demo",
        "store": "runs",
        "stages": {
            "search": {"family": "vae", "model": {"hidden": [64, 32]}, "metric": ["val/fd"]},
            "confirm": {"run": "${search.champion}", "seeds": 4},
            "last": {"command": "sample", "model": "${search.ranking.0}", "labels": [1, 2]},
        },
    },
]


def read_job_file(value: tuple[int, tuple[str, Any]]) -> None:
    which, change = value
    job = make_job(parse_yaml(json_file(JOBS[which], change), "job.yaml"), "job", {})
    again = make_job(parse_yaml(job.text(), "job.yaml"), "job", {})
    assert (again.name, again.shared) == (job.name, job.shared)
    assert [stage.content for stage in again.stages] == [stage.content for stage in job.stages]


# -- IDX ------------------------------------------------------------------------------------------
IDX_IMAGES = np.array([0x0803, 24, 28, 28], ">u4").tobytes() + bytes(24 * 28 * 28)
IDX_LABELS = np.array([0x0801, 24], ">u4").tobytes() + bytes(24)
HEADERS = st.lists(
    st.one_of(st.sampled_from([0x0801, 0x0803, 24, 28, 0, 2**32 - 1]), st.integers(0, 2**32 - 1)),
    max_size=4,
)


@cache
def mnist_folder() -> Path:
    raw = scratch() / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        (raw / f"{split}-images-idx3-ubyte").write_bytes(IDX_IMAGES)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(IDX_LABELS)
    return raw


def read_idx(value: tuple[str, bool, list[int], list[tuple[int, str, bytes]]]) -> None:
    name, packed, header, damage = value
    path = mnist_folder() / f"train-{name}-ubyte"
    good = IDX_IMAGES if name == "images-idx3" else IDX_LABELS
    start = np.array(header, ">u4").tobytes()
    content = start + good[len(start) :]
    content = gzip.compress(content, 1) if packed else content
    content = damaged(content, damage) if not header or packed else content
    written = path.with_name(f"{path.name}.gz") if packed else path
    path.unlink()
    written.write_bytes(content)
    try:
        arrays = published.read(ReadRequest("mnist", Path(), scratch()))
        assert arrays.train.images.shape == (24, 1, 28, 28)
    finally:
        written.unlink()
        path.write_bytes(good)


# -- npz ------------------------------------------------------------------------------------------
@cache
def good_archive(packed: bool) -> bytes:
    path = scratch() / "good.npz"
    save = np.savez_compressed if packed else np.savez
    save(path, images=np.arange(12 * 16, dtype=np.uint8).reshape(12, 4, 4), labels=np.arange(12))
    return path.read_bytes()


NPY_HEADERS = st.tuples(
    st.one_of(st.sampled_from(["'|u1'", "'<i8'", "'|O'", "'|V9'", "[('a','<f4')]"]), TEXTS),
    st.one_of(st.lists(NUMBERS, max_size=4).map(lambda s: str(tuple(s))), TEXTS),
    st.binary(max_size=200),
)


def read_npz(value: tuple[bool, list[tuple[int, str, bytes]], Any]) -> None:
    packed, damage, header = value
    path = scratch() / "x.npz"
    if header is None:
        path.write_bytes(damaged(good_archive(packed), damage))
    else:
        descr, shape, body = header
        text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
        text = text[:60_000]
        content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images.npy", content)
    data = load(f"npz:{path}", Path())
    assert data.train.dtype == np.uint8 and len(data.train) >= 1


# -- checkpoints ----------------------------------------------------------------------------------
PICKLE = 420
"""Bytes at the beginning of `optimizers.pt` that are its pickle."""


class _Good(NamedTuple):
    learner: Learner
    folder: Path
    files: dict[str, bytes]


@cache
def good_checkpoint() -> _Good:
    learner = make_learner("vae-mlp", hidden=(4,), latent_dim=2)
    folder = scratch() / "checkpoint"
    folder.mkdir()
    save_checkpoint(folder, "vae", learner.optim, learner)
    (folder / SUMS_FILE).unlink()  # whoever tampers with a file writes its checksum anew
    return _Good(learner, folder, {path.name: path.read_bytes() for path in folder.iterdir()})


def read_checkpoint(value: tuple[str, tuple[str, Any]]) -> None:
    name, change = value
    good = good_checkpoint()
    content = good.files[name]
    if change[0] == "damage":
        content = damaged(content, change[1])
    elif name == "model.json":
        content = json_file(json.loads(content), change)
    elif name == "weights.safetensors":
        (size,) = struct.unpack("<Q", content[:8])
        header = json_file(json.loads(content[8 : 8 + size]), change)
        content = struct.pack("<Q", len(header)) + header + content[8 + size :]
    else:
        content = (
            damaged(content[:420], [(w, "x", str(v).encode()[:4]) for w, _, v in change[1]])
            + content[420:]
        )
    (good.folder / name).write_bytes(content)
    try:
        if name == "optimizers.pt":
            restore_learner(good.folder, good.learner)
        else:
            load_checkpoint(good.folder)
    finally:
        (good.folder / name).write_bytes(good.files[name])


# -- journals -------------------------------------------------------------------------------------
@cache
def good_journal() -> dict[Path, bytes]:
    files = MemoryFiles()
    journal = Journal("/run", files)
    journal.open(run_info("a"))
    journal.write_epoch(1, {"val/elbo": -1.0}, {"samples": b"png"})
    journal.close(Outcome("completed", 1, {"best/val/elbo": -1.0}, {"best_epoch": "1"}))
    journal.mark_delivered({"uri": "sqlite://", "run_id": "a" * 32, "outcome": "completed"})
    EvaluationJournal("/run", files).write("a" * 32, {"test/fd": 1.0}, {"seed": "0"}, {})
    return {path: content for path, content in files.content.items() if path.suffix == ".json"}


JOURNAL_FILES = ["identity", "reports/000001", "outcome", "delivered", "evaluation"]


def read_journal(value: tuple[str, tuple[str, Any]]) -> None:
    name, change = value
    files = MemoryFiles()
    for path, content in good_journal().items():
        files.write(path, content)
    path = (
        Path("/run/evaluation.json") if name == "evaluation" else Path(f"/run/journal/{name}.json")
    )
    files.write(path, json_file(json.loads(files.read(path)), change))
    folder = RunFolder(Path("/run"), files)
    journal = folder.journal
    if name == "evaluation":
        record = EvaluationJournal("/run", files).record()
        assert record is None or all(Path("/run") in p.parents for p in record.pictures.values())
        return
    journal.deliveries(), journal.run_ids(), journal.last(), journal.whole_until()
    found = JournalCache().read(folder)
    for each in found.epochs.values():
        assert all(Path("/run/journal/reports") in p.parents for p in each.pictures.values())
        assert all(".." not in p.parts for p in each.pictures.values())
    journal.open(run_info("a"))


# -- run tags -------------------------------------------------------------------------------------
TAG_NAMES = [
    *("family", "rerun", "metric", "mode", "value", "seeds", "data_digest"),
    *("best_settings", "widest", "key"),
]
PARAM_NAMES = [
    *("model.latent_dim", "model.hidden", "model.arch", "optim.lr", "epochs", "fuse", "data", "x"),
]
TAGS = st.dictionaries(
    st.sampled_from(
        [
            "family",
            "rerun",
            "metric",
            "mode",
            "value",
            "seeds",
            "data_digest",
            "best_settings",
            "widest",
            "key",
        ]
    ),
    TEXTS,
)
PARAMS = st.dictionaries(
    st.sampled_from(
        [
            "model.latent_dim",
            "model.hidden",
            "model.arch",
            "optim.lr",
            "epochs",
            "fuse",
            "data",
            "x",
        ]
    ),
    st.one_of(TEXTS, NUMBERS.map(str), st.lists(NUMBERS, max_size=2).map(str)),
    max_size=3,
)


def read_tags(value: tuple[dict[str, str], dict[str, str], bool]) -> None:
    params, tags, is_vae = value
    tags |= {"family": "vae"} if is_vae else {}
    Claim.from_tags(tags)
    row = RunRow(
        *("a" * 32, "a", "vae-digits", "run", "", "", "FINISHED", "", 0),
        {"best/val/elbo": 1.0},
        params,
        tags,
        datetime.now(),
    )
    runs._row(row, "val/elbo", "runs")
    runs._mode("vae", [row], "val/elbo")
    config_from_params(params, tags)


PROPERTIES = {
    "config": Property(st.tuples(st.integers(0, 1), JSONS), read_config),
    "job": Property(st.tuples(st.integers(0, 1), JSONS), read_job_file),
    "idx": Property(
        st.tuples(st.sampled_from(["images-idx3", "labels-idx1"]), st.booleans(), HEADERS, DAMAGE),
        read_idx,
    ),
    "npz": Property(st.tuples(st.booleans(), DAMAGE, st.none() | NPY_HEADERS), read_npz),
    "checkpoint": Property(
        st.tuples(st.sampled_from(["model.json", "weights.safetensors", "optimizers.pt"]), JSONS),
        read_checkpoint,
    ),
    "journal": Property(st.tuples(st.sampled_from(JOURNAL_FILES), JSONS), read_journal),
    "tags": Property(st.tuples(PARAMS, TAGS, st.booleans()), read_tags),
}


def remove_scratch() -> None:
    """Remove what this process wrote for the properties."""
    shutil.rmtree(scratch(), ignore_errors=True)
