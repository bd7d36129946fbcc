"""Control of a search: the time that it uses, over resumptions, and requests to end."""

import logging
from pathlib import Path
from typing import Any

import pytest
from support.journals import read_trials, write_run

from pipelines.config.search import Search
from pipelines.config.serialization import make_config
from pipelines.store.layout import SearchFolder, Store
from pipelines.store.stop_request import ask_to_stop, find_request, withdraw_request
from pipelines.store.usage import Usage, read_usage, write_usage
from pipelines.training.control import POLL_SECONDS, SearchControl, StopPoll


@pytest.fixture
def folder(tmp_path: Path) -> SearchFolder:
    return Store.at(tmp_path).search("s")


def control(folder: SearchFolder, **settings: Any) -> SearchControl:
    run = make_config(Search, "vae", {"metric": "val/elbo", "mode": "max", **settings})
    return SearchControl(run, folder, [folder], read_trials(folder.path))


def test_time_is_metered_with_the_devices_that_trials_hold(folder: SearchFolder) -> None:
    meter = control(folder)
    meter.meter(100.0, 4)
    assert meter.usage == Usage(devices=4)
    meter.meter(110.0, 2)
    meter.meter(115.0, 0)
    meter.meter(200.0, 1)
    assert (meter.usage.seconds, meter.usage.device_seconds) == (15.0, 4 * 10.0 + 2 * 5.0)


def test_what_a_search_has_used_is_added_up_over_resumptions(folder: SearchFolder) -> None:
    first = control(folder, max_hours=1.0)
    first.meter(0.0, 2)
    first.meter(1800.0, 2)
    assert not first.exhausted()
    assert read_usage(folder).seconds == 1800.0  # also if it is killed now
    second = control(folder, max_hours=1.0)
    second.meter(5000.0, 2)
    second.meter(6799.0, 2)
    assert not second.exhausted()
    second.meter(6800.0, 2)
    second.meter(6811.0, 0)
    assert second.exhausted() == "--max-hours 1 is used up"
    assert second.usage.device_seconds == 2 * second.usage.seconds == 2 * 3611.0
    assert control(folder, max_hours=1.0).exhausted()  # before Ray starts
    assert not control(folder, max_hours=1.5).exhausted()


def test_why_a_search_has_ended_is_recorded_until_tune_runs_again(folder: SearchFolder) -> None:
    meter = control(folder)
    meter.meter(0.0, 1)
    meter.end("asked to")
    assert read_usage(folder).ended_by == "asked to" and read_usage(folder).devices == 0
    again = control(folder)
    again.end()  # it was interrupted before Tune ran
    assert read_usage(folder).ended_by == "asked to"
    again.meter(0.0, 1)
    assert read_usage(folder).ended_by == ""


def test_trials_that_end_are_counted(folder: SearchFolder) -> None:
    write_run(folder.trial("a").path, [-9.0, -8.0])
    write_run(folder.trial("b").path, [-9.0])
    meter = control(folder, stop_when_flat=3)
    meter.trial_ended([-10.0])
    assert meter.due(0.0, -8.0) == ""
    meter.trial_ended([-11.0])
    assert meter.due(0.0, -8.0).startswith("--stop-when-flat 3: 3 trials ended without a val/elbo")
    assert meter.due(0.0, -1.0) == ""  # a running trial is better


def test_usage_that_is_damaged_is_counted_anew(
    folder: SearchFolder, caplog: pytest.LogCaptureFixture
) -> None:
    write_usage(folder, Usage(5.0))
    folder.usage.write_text('{"seconds": "many"}')
    with caplog.at_level(logging.WARNING):
        assert read_usage(folder) == Usage()
    assert "usage.json" in caplog.text and "counted anew" in caplog.text


def test_a_request_is_seen_in_any_of_the_folders_and_not_looked_for_all_the_time(
    tmp_path: Path,
) -> None:
    search, study = Store.at(tmp_path).search("s"), Store.at(tmp_path).search("s-study")
    poll = StopPoll([study, search])
    assert poll.look(0.0) == ""
    request = ask_to_stop(search)
    assert poll.look(0.5 * POLL_SECONDS) == ""
    assert poll.look(1.5 * POLL_SECONDS) == request.describe()
    withdraw_request(search)
    assert poll.look(3.0 * POLL_SECONDS) == ""


def test_the_first_request_stays(folder: SearchFolder) -> None:
    first = ask_to_stop(folder)
    assert ask_to_stop(folder) == first == find_request(folder)
    assert first.describe().startswith(f"stopped by genpipe stop on {first.host} at 20")
    folder.stop_request.write_text("{")
    assert find_request(folder)  # somebody has asked, whoever it was
