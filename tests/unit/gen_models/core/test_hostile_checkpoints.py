"""Checkpoints that somebody made to do harm, or that were damaged: each is refused in one message
that names its folder, takes little memory, and runs nothing."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import loaders
from support.containment import Reading, read_contained
from support.models import make_learner, some_batch

from gen_models.core.checkpoint import save_checkpoint
from gen_models.core.checksums import SUMS_FILE, write_checksums
from gen_models.training.learner import Learner

PEAK = 48
"""MiB that reading any of these files may take; a few are of the C libraries' first use."""

Tamper = Callable[[Path], None]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a GAN, whose generator has an average."""
    folder, learner = tmp_path_factory.mktemp("good"), trained()
    save_checkpoint(folder, "gan", learner.optim, learner)
    return folder


def trained() -> Learner:
    learner = make_learner(loaders.VARIANT)
    for _ in range(2):
        learner.step(some_batch(8))
    return learner


# -- model.json ---------------------------------------------------------------------------------
def text(content: str | bytes) -> Tamper:
    """Write a whole `model.json`."""
    raw = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / "model.json").write_bytes(raw) and None


def edit(**changes: Any) -> Tamper:
    """Change fields of `model.json`; a mapping changes fields within; `...` removes one."""

    def tamper(folder: Path) -> None:
        content = json.loads((folder / "model.json").read_text())
        for name, value in changes.items():
            if value is ...:
                del content[name]
            elif isinstance(value, dict):
                content[name] |= value
            else:
                content[name] = value
        (folder / "model.json").write_text(json.dumps(content))

    return tamper


def replace_number(name: str, number: str) -> Tamper:
    """Put a number as it stands in JSON in place of a field of the config."""

    def tamper(folder: Path) -> None:
        edit(config={name: "HERE"})(folder)
        path = folder / "model.json"
        path.write_text(path.read_text().replace('"HERE"', number))

    return tamper


def pipe(name: str) -> Tamper:
    def tamper(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return tamper


def link(name: str, target: str) -> Tamper:
    def tamper(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return tamper


DESCRIPTIONS: dict[str, Tamper] = {
    "empty": text(""),
    "no JSON": text("{'family': 'gan'"),
    "no text": text(b"\xff\xfe\x00\x01" * 9),
    "a list": text("[1, 2]"),
    "nested 100,000 deep": text('{"config":' * 100_000),
    "an array nested in an array": edit(config={"hidden": json.loads("[" * 500 + "]" * 500)}),
    "64 MiB of spaces": text(" " * (64 << 20)),
    "a device without end": link("model.json", "/dev/zero"),
    "a pipe": pipe("model.json"),
    "no family": edit(family=...),
    "no config": edit(config=...),
    "no optimizers": edit(optim=...),
    "the family a number": edit(family=5),
    "a family of a megabyte": edit(family="x\n" * 400_000),
    "a family in another place": edit(family="../../vae"),
    "a module that is no family": edit(family="core.checkpoint"),
    "the package a list": edit(package=["x"]),
    "an unknown architecture": edit(config={"arch": "transformer"}),
    "an unknown field": edit(config={"run": "rm -rf /"}),
    "an unknown field of many lines": edit(config={"a\nb" * 1000: 1}),
    "a width as text": edit(config={"latent_dim": "16"}),
    "a width and a half": edit(config={"latent_dim": 4.5}),
    "a width that is true": edit(config={"latent_dim": True}),
    "a width of 0": edit(config={"latent_dim": 0}),
    "a width of 2**40": edit(config={"latent_dim": 2**40}),
    "a width of 2**62": edit(config={"latent_dim": 2**62}),
    "a width of 10**30": edit(config={"latent_dim": 10**30}),
    "a width of 5,000 digits": replace_number("latent_dim", "9" * 5000),
    "another width": edit(config={"latent_dim": 5}),
    "networks of 3 GB": edit(config={"hidden": [20_000, 20_000]}),
    "300,000 layers": edit(config={"hidden": [1] * 300_000}),
    "200 layers": edit(config={"hidden": [1] * 200}),
    "no layers": edit(config={"hidden": []}),
    "layers as damaged text": edit(config={"hidden": "[" * 100_000}),
    "other networks": edit(config={"arch": "conv"}),
    "a weight that is not finite": replace_number("gradient_penalty", "1e999"),
    "a weight that is NaN": replace_number("gradient_penalty", "NaN"),
    "a weight beyond every float": replace_number("gradient_penalty", "1" + "0" * 400),
    "packs of 2**50": edit(config={"pac": 2**50}),
    "a rate that is NaN": edit(optim={"generator": {"lr": float("nan")}}),
    "optimizers of another family": edit(optim={"lr": 0.1}),
    "another average": edit(optim={"generator": {"ema_decay": 0.0}}),
    "a shape without sizes": edit(spec={"shape": []}),
    "a shape of 100 sizes": edit(spec={"shape": [2] * 100}),
    "a size of -8": edit(spec={"shape": [1, -8, 8]}),
    "images of 10**12 pixels": edit(spec={"shape": [1, 10**6, 10**6]}),
    "images of 10**60 pixels": edit(spec={"shape": [10**20, 10**20, 10**20]}),
    "-1 classes": edit(spec={"num_classes": -1}),
    "2**45 classes": edit(spec={"num_classes": 2**45}, config={"conditional": True}),
    "-1 steps": edit(step_count=-1),
    "10**300 steps": edit(step_count=10**300),
    "the seed a text": edit(seed="0"),
}


# -- weights.safetensors --------------------------------------------------------------------------
def raw(name: str, change: Callable[[bytes], bytes]) -> Tamper:
    """Change the bytes of a file."""

    def tamper(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return tamper


def sparse(name: str, size: int) -> Tamper:
    """Lengthen a file to `size` bytes that take no place on disk."""
    return lambda folder: os.truncate(folder / name, size)


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Tamper:
    """Change the tensors of the weights."""

    def tamper(folder: Path) -> None:
        path = folder / "weights.safetensors"
        content = {name: tensor.clone() for name, tensor in load_file(path).items()}
        change(content)
        save_file({name: tensor.contiguous() for name, tensor in content.items()}, path)

    return tamper


def header(change: Callable[[dict[str, Any]], object]) -> Tamper:
    """Change the header of the weights, and leave the bytes behind it."""

    def change_bytes(content: bytes) -> bytes:
        (size,) = struct.unpack("<Q", content[:8])
        declared = json.loads(content[8 : 8 + size])
        change(declared)
        written = json.dumps(declared).encode()
        return struct.pack("<Q", len(written)) + written + content[8 + size :]

    return raw("weights.safetensors", change_bytes)


FIRST = "networks.discriminator.body.1.weight"
AVERAGE = "averages.generator.0.1.weight"


def first(change: Callable[[torch.Tensor], torch.Tensor]) -> Tamper:
    return tensors(lambda content: content.update({FIRST: change(content[FIRST])}))


def fill(value: float, name: str = FIRST) -> Tamper:
    return tensors(lambda content: content[name].view(-1)[3].fill_(value))


WEIGHTS: dict[str, Tamper] = {
    "none": lambda folder: (folder / "weights.safetensors").unlink(),
    "empty": raw("weights.safetensors", lambda _: b""),
    "cut in the header": raw("weights.safetensors", lambda content: content[:100]),
    "cut in the tensors": raw("weights.safetensors", lambda content: content[:-9]),
    "longer by 9 bytes": raw("weights.safetensors", lambda content: content + b"0" * 9),
    "256 MiB of nothing": sparse("weights.safetensors", 256 << 20),
    "a header of 2**63 bytes": raw("weights.safetensors", lambda c: b"\xff" * 8 + c[8:]),
    "a header that is no JSON": raw("weights.safetensors", lambda c: c[:8] + b"x" + c[9:]),
    "a header nested deep": raw(
        "weights.safetensors", lambda _: struct.pack("<Q", 60_000) + b'{"a":' * 12_000
    ),
    "a pickle": raw("weights.safetensors", lambda _: pickle.dumps({"a": 1})),
    "a pipe": pipe("weights.safetensors"),
    "a device without end": link("weights.safetensors", "/dev/zero"),
    "offsets beyond the file": header(lambda h: h[FIRST].update(data_offsets=[0, 2**40])),
    "offsets that overlap": header(lambda h: h[FIRST].update(data_offsets=[0, 8])),
    "a shape of 2**80 values": header(lambda h: h[FIRST].update(shape=[2**40, 2**40])),
    "a negative shape": header(lambda h: h[FIRST].update(shape=[-1, -64])),
    "an unknown type": header(lambda h: h[FIRST].update(dtype="OBJECT")),
    "transposed": first(lambda tensor: tensor.T),
    "of other sizes": first(lambda tensor: tensor[:3]),
    "of integers": first(lambda tensor: tensor.long()),
    "NaN": fill(float("nan")),
    "infinite": fill(float("inf")),
    "an average that is NaN": fill(float("nan"), AVERAGE),
    "a tensor less": tensors(lambda content: content.pop(FIRST)),
    "an average less": tensors(lambda content: content.pop(AVERAGE)),
    "a tensor more": tensors(lambda content: content.update({"networks.x.y": torch.zeros(1)})),
    "a tensor of no network": tensors(lambda content: content.update({"x\n": torch.zeros(1)})),
}


# -- optimizers.pt --------------------------------------------------------------------------------
class Call:
    """Pickles to the call of a function."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.args


def members(
    change: Callable[[str, bytes], bytes] = lambda _, content: content,
    compression: int = zipfile.ZIP_STORED,
    extra: dict[str, bytes] | None = None,
) -> Callable[[bytes], bytes]:
    """Write an archive again with members that are changed, or more of them."""

    def rewrite(content: bytes) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
            for name in old.namelist():
                new.writestr(name, change(name.partition("/")[2], old.read(name)), compression)
            for name, value in (extra or {}).items():
                new.writestr(name, value, compression)
        return out.getvalue()

    return rewrite


def pickled(change: Callable[[bytes], bytes]) -> Tamper:
    """Change the pickle within the archive."""
    rewrite = members(lambda name, content: change(content) if name == "data.pkl" else content)
    return raw("optimizers.pt", rewrite)


def state(change: Callable[[dict[str, Any]], object]) -> Tamper:
    """Save another state of the optimizers."""

    def tamper(folder: Path) -> None:
        content = trained().state_dict()["optimizers"]
        change(content)
        torch.save(content, folder / "optimizers.pt")

    return tamper


def saved(content: Any) -> Tamper:
    return lambda folder: torch.save(content, folder / "optimizers.pt")


def planted(folder: Path) -> Call:
    return Call(os.mkdir, str(folder / "code ran"))


def legacy(folder: Path) -> None:
    torch.save(planted(folder), folder / "optimizers.pt", _use_new_zipfile_serialization=False)


def behind_a_pickle(folder: Path) -> None:
    """An archive for whoever reads a file from its end, a pickle for who reads from its start."""
    archive = (folder / "optimizers.pt").read_bytes()
    (folder / "optimizers.pt").write_bytes(pickle.dumps(planted(folder)) + archive)


def smaller_storages(content: bytes) -> bytes:
    """Declare each storage as one of one value, so that tensors are larger than their storages."""
    return re.sub(rb"(K.|M..)tq", b"K\x01tq", content, flags=re.S)


def huge_view(state: dict[str, Any]) -> None:
    state["generator"]["exp_avg"][0] = torch.zeros(1).expand(2**40)


def first_moment(value: object) -> Tamper:
    return state(lambda content: content["generator"]["exp_avg"].__setitem__(0, value))


SUMS: dict[str, Tamper] = {
    "wrong ones": raw("weights.safetensors", lambda content: content[:-1] + b"0"),
    "of a file that is not there": lambda folder: (
        (folder / "SHA256SUMS").write_text("0  x\n") and None
    ),
    "a device without end": link("SHA256SUMS", "/dev/zero"),
    "a pipe": pipe("SHA256SUMS"),
    "a file elsewhere": lambda folder: (folder / "SHA256SUMS").write_text("0  ../../x\n") and None,
}


OPTIMIZERS: dict[str, Tamper] = {
    "none": lambda folder: (folder / "optimizers.pt").unlink(),
    "empty": raw("optimizers.pt", lambda _: b""),
    "cut": raw("optimizers.pt", lambda content: content[:-40]),
    "256 MiB of nothing": sparse("optimizers.pt", 256 << 20),
    "a pipe": pipe("optimizers.pt"),
    "code": lambda folder: torch.save({"a": planted(folder)}, folder / "optimizers.pt"),
    "code in the old format": legacy,
    "code in a plain pickle": lambda folder: (folder / "optimizers.pt").write_bytes(
        pickle.dumps(planted(folder))
    ),
    "code before the archive": behind_a_pickle,
    "code without a name": pickled(lambda _: b"\x80\x04\x8c\x02os\x8c\x06getcwd\x93)R."),
    "64 GiB by a call": saved({"a": Call(bytearray, 2**36)}),
    "64 GiB as a tensor": pickled(
        lambda _: b"\x80\x02ctorch\nTensor\n\x8a\x05\x00\x00\x00\x00\x10\x85R."
    ),
    "packed": raw("optimizers.pt", members(compression=zipfile.ZIP_DEFLATED)),
    "1 GiB, packed": raw(
        "optimizers.pt", members(compression=zipfile.ZIP_DEFLATED, extra={"x": bytes(1 << 28)})
    ),
    "two pickles": raw("optimizers.pt", members(extra={"other/data.pkl": b"N."})),
    "no pickle": raw("optimizers.pt", lambda _: members()(_zip_of({"a": b"b"}))),
    "an endless memo": pickled(lambda _: b"\x80\x02Nr\xff\xff\xff\x7f."),
    "nested deep": pickled(lambda _: b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b"."),
    "a number of 2**31 bytes": pickled(lambda _: b"\x80\x02\x8b\xff\xff\xff\x7f1."),
    "tensors larger than their storages": pickled(smaller_storages),
    "a view of 2**40 values": state(huge_view),
    "a sparse tensor": first_moment(torch.zeros(3, 64).to_sparse()),
    "a number": first_moment(3),
    "of other sizes": first_moment(torch.zeros(2, 3)),
    "of integers": state(
        lambda content: content["generator"].update(step=torch.tensor(3, dtype=torch.int64))
    ),
    "NaN": state(lambda content: content["generator"]["exp_avg"][0].fill_(float("nan"))),
    "an objective less": state(lambda content: content.pop("generator")),
    "an objective more": state(lambda content: content.update(other={})),
    "a tensor less": state(lambda content: content["generator"]["exp_avg"].pop()),
    "a list": saved([torch.zeros(3)]),
}


def _zip_of(content: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, value in content.items():
            archive.writestr(name, value)
    return out.getvalue()


CASES = {
    f"{file}: {case}": (tamper, load)
    for file, cases, load in (
        ("model.json", DESCRIPTIONS, loaders.model),
        ("weights", WEIGHTS, loaders.model),
        ("weights to restore", WEIGHTS, loaders.restore),
        ("optimizers", OPTIMIZERS, loaders.restore),
        ("checksums", SUMS, loaders.model),
    )
    for case, tamper in cases.items()
}


@pytest.fixture(scope="module")
def readings(good: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reading]:
    """What became of each case's checkpoint, and of the good one."""
    tasks, above = [], tmp_path_factory.mktemp("hostile_checkpoints")
    for number, (tamper, load) in enumerate(CASES.values()):
        folder = above / f"{number:03}"
        shutil.copytree(good, folder)
        tamper(folder)
        is_regular = all(path.is_file() for path in folder.iterdir())
        if is_regular and tamper not in SUMS.values():  # whoever tampers does this too
            (folder / SUMS_FILE).unlink(missing_ok=True)
            write_checksums(folder)
        tasks.append((load, (folder,)))
    tasks += [(load, (good,)) for load in GOOD.values()]
    return dict(zip([*CASES, *GOOD], read_contained(tasks), strict=True))


GOOD = {"loaded": loaders.model, "restored": loaders.restore}


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_checkpoint_is_refused(case: str, readings: dict[str, Reading]) -> None:
    reading, number = readings[case], list(CASES).index(case)
    assert reading.how == "refused", reading
    assert f"hostile_checkpoints0/{number:03}" in reading.message and "\n" not in reading.message
    assert len(reading.message) < 1500, reading.message[:1500]
    assert reading.peak < PEAK, reading


@pytest.mark.parametrize("case", GOOD)
def test_the_checkpoint_itself_is_read(case: str, readings: dict[str, Reading]) -> None:
    assert readings[case].how == "read" and readings[case].peak < PEAK, readings[case]


def test_none_ran_its_code(
    readings: dict[str, Reading], tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert not list(tmp_path_factory.getbasetemp().rglob("code ran"))


def test_a_learner_is_as_it_was_if_a_checkpoint_is_refused(good: Path, tmp_path: Path) -> None:
    """So that an older checkpoint can be restored instead."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(good, folder)
    OPTIMIZERS["a tensor less"](folder)
    (folder / SUMS_FILE).unlink()
    learner = make_learner(loaders.VARIANT, seed=3)
    before = {k: v.clone() for k, v in learner.networks["generator"].state_dict().items()}
    with pytest.raises(ValueError, match="a broken checkpoint"):
        loaders.restore_learner(folder, learner)
    after = learner.networks["generator"].state_dict()
    assert learner.seed == 3 and learner.step_count == 0
    assert all(torch.equal(before[name], after[name]) for name in before)
