"""`config.json` files and recorded parameters that somebody made to do harm, or that were damaged:
each is refused in one message that names the file, and takes little memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import loaders
from support.containment import Reading, read_contained

from gen_models.core.errors import InputError
from pipelines.config.run import Train, defaults
from pipelines.config.serialization import config_from_params, dump_config

PEAK = 32
"""MiB that reading any of these files may take."""


def edit(**changes: Any) -> str:
    """Return a good config with other fields; a mapping changes fields within."""
    content = json.loads(dump_config(defaults(Train, "vae")))
    for name, value in changes.items():
        old = content["config"].get(name)
        content["config"][name] = old | value if isinstance(value, dict) else value
    return json.dumps(content)


def whole(**changes: Any) -> str:
    return json.dumps(json.loads(dump_config(defaults(Train, "vae"))) | changes)


CONFIGS: dict[str, str] = {
    "empty": "",
    "a list": "[]",
    "64 MiB of spaces": " " * (64 << 20),
    "nested 100,000 deep": '{"config":' * 100_000,
    "a list nested 100,000 deep": "[" * 100_000,
    "a format of 10**4000": '{"format": 1' + "0" * 4000 + "}",
    "a format of 5,000 digits": '{"format": 1' + "0" * 5000 + "}",
    "a negative format": whole(format=-1),
    "a format that is true": whole(format=True),
    "an unknown command": whole(command="rm"),
    "a command that is a list": whole(command=[]),
    "a config that is a text": whole(config="x" * 100_000),
    "a config that is empty": whole(config={}),
    "an old format of nothing": whole(format=0),
    "a family in another place": edit(family="../vae"),
    "a family of a megabyte": edit(family="x\n" * 200_000),
    "a family that is a mapping": edit(family=["a"]),
    "an unknown field of many lines": edit(**{"a\nb" * 9999: 1}),
    "an unknown architecture": edit(model={"arch": "transformer"}),
    "a rate that is NaN": edit(optim={"lr": float("nan")}),
    "a weight that is infinite": edit(model={"kl_weight": float("inf")}),
    "a weight of 10**400": edit(model={"kl_weight": 10**400}),
    "10**400 epochs and a half": edit(epochs=1.5),
    "a seed of 65 bits": edit(seed=2**64),
    "a width of 65 bits": edit(model={"hidden": [2**64]}),
    "-1 workers": edit(num_workers=-1),
    "a batch that is true": edit(batch_size=True),
    "300 layers": edit(model={"hidden": [1] * 300}),
    "layers nested deep": edit(model={"hidden": "[" * 100_000}),
    "layers that are mappings": edit(model={"hidden": [{}] * 9}),
    "a store that is a list": edit(store=["/"]),
    "a name with a slash": edit(name="../../x"),
}


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Reading]]:
    """What became of each file."""
    above, paths = tmp_path_factory.mktemp("hostile"), []
    for number, content in enumerate(CONFIGS.values()):
        paths.append(above / f"{number:03}" / "config.json")
        paths[-1].parent.mkdir()
        paths[-1].write_text(content)
    readings = read_contained([(loaders.config, (path,)) for path in paths])
    return dict(zip(CONFIGS, zip(paths, readings, strict=True), strict=True))


@pytest.mark.parametrize("case", CONFIGS)
def test_a_hostile_config_is_refused(case: str, readings: dict[str, tuple[Path, Reading]]) -> None:
    path, reading = readings[case]
    assert reading.how == "refused", reading
    assert str(path) in reading.message and "\n" not in reading.message
    assert len(reading.message) < 1500, reading.message[:1500]
    assert reading.peak < PEAK + path.stat().st_size / (1 << 20), reading


PARAMS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "nested deep": ({"model.hidden": "(" * 9000}, {}),
    "code": ({"model.latent_dim": "__import__('os').mkdir('code ran')"}, {}),
    "a great power": ({"model.latent_dim": "9**9**9"}, {}),
    "infinite": ({"optim.lr": "1e999"}, {}),
    "of 10,000 digits": ({"epochs": "9" * 10_000}, {}),
    "another type": ({"epochs": "(1, 2)"}, {}),
    "an unknown family": ({}, {"family": "x\n" * 9000}),
    "no family": ({}, {"family": ""}),
}


@pytest.mark.parametrize("case", PARAMS)
def test_hostile_parameters_are_refused(case: str, tmp_path: Path) -> None:
    params, tags = PARAMS[case]
    with pytest.raises(InputError) as raised:
        config_from_params(params, {"family": "vae", **tags})
    message = str(raised.value)
    assert len(message) < 1500, message[:1500]
    assert "\n" not in message


def test_a_command_that_is_no_command_is_not_needed() -> None:
    """The tag `rerun` is text for people; only the folder of the data is taken from it."""
    tags = {"family": "vae", "rerun": "genpipe train vae --data-root 'no end"}
    assert config_from_params({}, tags) == defaults(Train, "vae")
