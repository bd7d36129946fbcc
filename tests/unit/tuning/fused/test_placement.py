"""Placement of fused trials: workers, trials on each, and what memory holds."""

import subprocess
import sys
from dataclasses import replace
from typing import Any, get_args

import pytest
from support.models import SPEC

from gen_models.core.data import DataSpec
from gen_models.core.errors import InputError
from pipelines.cluster.resources import Devices
from pipelines.config.run import defaults
from pipelines.config.search import Fuse, Search
from pipelines.config.serialization import with_settings
from pipelines.tuning.fused.placement import Placement, plan_placement, trial_bytes

CPU = Devices(num=4, on_gpu=False, memory=None)
GPU = Devices(num=1, on_gpu=True, memory=None)


def make_run(**settings: Any) -> Search:
    return replace(defaults(Search, "vae"), **settings)


def room_for(trials: float, devices: Devices, run: Search) -> Devices:
    """Return devices whose memory holds so many trials on each."""
    each = trial_bytes(run, SPEC, devices.on_gpu)
    sharing = 1 if devices.on_gpu else devices.num
    return replace(devices, memory=int(each * sharing * trials / 0.6) + sharing)


@pytest.mark.parametrize(
    ("devices", "trials", "fuse", "most", "workers", "each"),
    [
        # On CPU cores: two on each, as many workers as are needed.
        (CPU, 16, "auto", None, 4, 2),
        (CPU, 8, "auto", None, 4, 2),
        (CPU, 4, "auto", None, 4, 1),
        (CPU, 3, "auto", None, 3, 1),
        (CPU, 1, "auto", None, 1, 1),
        (CPU, 16, 3, None, 4, 3),
        (CPU, 6, 4, None, 3, 2),  # spread evenly, and not 4 on the first
        (CPU, 16, "auto", 2, 2, 1),
        (CPU, 16, "auto", 1, 1, 1),
        (CPU, 16, 8, 5, 3, 2),
        # One device has them all, up to its number.
        (replace(CPU, num=1), 16, "auto", None, 1, 2),
        (replace(CPU, num=1), 16, 10, None, 1, 10),
        (replace(CPU, num=1), 16, 100, None, 1, 16),
        (GPU, 100, "auto", None, 1, 16),
        (GPU, 5, "auto", None, 1, 5),
        (replace(GPU, num=8), 1000, "auto", None, 8, 16),
        (replace(GPU, num=8), 9, "auto", None, 5, 2),
        (replace(GPU, num=8), 1000, 64, None, 8, 64),
    ],
)
def test_trials_are_spread_over_devices(
    devices: Devices, trials: int, fuse: Fuse, most: int | None, workers: int, each: int
) -> None:
    run = make_run(trials=trials, fuse=fuse, max_concurrent=most)
    placement = plan_placement(run, SPEC, devices)
    assert placement == Placement(workers, each, devices.on_gpu)
    assert placement.at_once == workers * each
    assert placement.workers <= devices.num
    # All that may run at once have a place; with one trial less on each they would not.
    wanted = min(trials, most or trials)
    assert placement.workers * placement.trials_per_worker >= min(wanted, placement.at_once)


@pytest.mark.parametrize("devices", [CPU, GPU])
@pytest.mark.parametrize(("room", "each"), [(0.5, 1), (1.0, 1), (1.9, 1), (2.0, 2)])
def test_memory_limits_how_many_fit(devices: Devices, room: float, each: int) -> None:
    run = make_run(trials=100)
    assert plan_placement(run, SPEC, room_for(room, devices, run)).trials_per_worker == each


@pytest.mark.parametrize(("devices", "owner"), [(CPU, "machine"), (GPU, "GPU")])
def test_more_than_memory_holds_is_refused(devices: Devices, owner: str) -> None:
    run = make_run(trials=100, fuse=4)
    assert plan_placement(run, SPEC, room_for(4, devices, run)).trials_per_worker == 4
    with pytest.raises(InputError) as caught:
        plan_placement(run, SPEC, room_for(3.9, devices, run))
    message = str(caught.value)
    assert message.startswith("fuse = 4: expected at most 3: a trial takes some ")
    assert message.endswith(f" MiB of the {owner}'s memory")


def test_cpu_cores_share_the_machine_s_memory() -> None:
    run = make_run(trials=100, fuse=4)
    enough = room_for(4, CPU, run)
    assert plan_placement(run, SPEC, enough)
    with pytest.raises(InputError, match="fuse = 4: expected at most 2"):
        plan_placement(run, SPEC, replace(enough, num=8))


def test_on_a_cpu_torch_s_compiler_is_not_imported() -> None:
    """Its import takes seconds, before any trial starts."""
    code = (
        "import sys; from pipelines.config.run import defaults\n"
        "from pipelines.config.search import Search\n"
        "from gen_models.core.data import DataSpec\n"
        "from pipelines.cluster.resources import Devices\n"
        "from pipelines.tuning.fused.placement import plan_placement\n"
        "devices = Devices(num=2, on_gpu=False, memory=2**33)\n"
        "plan_placement(defaults(Search, 'vae'), DataSpec((1, 8, 8), 10), devices)\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_memory_that_is_unknown_limits_nothing() -> None:
    run = make_run(trials=10_000, fuse=5_000)
    assert plan_placement(run, SPEC, replace(CPU, num=2)).at_once == 10_000


def test_a_trial_s_memory_grows_with_its_model_and_batch() -> None:
    run = make_run()
    larger = with_settings(run, {"model": {"hidden": [1024]}})
    assert trial_bytes(larger, SPEC, False) > 1.5 * trial_bytes(run, SPEC, False)
    # On a GPU the state is held several times, and a step is held as well.
    assert trial_bytes(run, SPEC, True) > 4 * trial_bytes(run, SPEC, False) * 0.9
    colour = DataSpec((3, 32, 32), 10)
    more = replace(run, batch_size=1024)
    assert trial_bytes(more, colour, True) > trial_bytes(run, colour, True)


def test_a_placement_is_described() -> None:
    text = "trials fused, 6 at once: 2 fused workers of up to 3 trials, each on a "
    assert Placement(2, 3, on_gpu=False).describe() == f"{text}CPU core"
    assert Placement(2, 3, on_gpu=True).describe() == f"{text}GPU"
    assert set(get_args(get_args(Fuse)[0])) == {"auto", "off"}
