"""Leases between real processes: refused, killed, suspended, raced for, and on two machines."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from gen_models.core.errors import InputError
from pipelines.store import lease
from pipelines.store.files import LeaseLostError
from pipelines.store.layout import RunFolder
from pipelines.store.lease import Holder, holding, require_held, seems_held

ROOT = Path(__file__).parents[3]
BEAT, SILENT = 0.1, 1.0
HOLD = f"""
import logging, sys
from pathlib import Path
from gen_models.core.errors import InputError
from pipelines.store import lease
from pipelines.store.files import LeaseLostError
from pipelines.store.layout import RunFolder
lease._BEAT_SECONDS, lease._SILENT_SECONDS, lease._PATIENCE_SECONDS = {BEAT}, {SILENT}, 0.0
logging.basicConfig()
"""
HOLD += """
system = sys.argv[2]
if system:
    lease._system = lambda: system
print("ready", flush=True)
sys.stdin.readline()
try:
    with lease.holding(RunFolder(Path(sys.argv[1])), "name"):
        print("held", flush=True)
        sys.stdin.read()
except InputError as error:
    print(error, flush=True)
except LeaseLostError as error:
    print("lost:", error, flush=True)
"""
"""Holds a lease from a line of stdin to its end. The second argument: another machine, or ""."""
Child = subprocess.Popen[str]
Start = Callable[..., list[Child]]


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_BEAT_SECONDS", BEAT)
    monkeypatch.setattr(lease, "_SILENT_SECONDS", SILENT)
    monkeypatch.setattr(lease, "_PATIENCE_SECONDS", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "a run")


@pytest.fixture
def start(folder: RunFolder) -> Iterator[Start]:
    """Starts processes, and has all of them take the lease at one moment. `system`: the machine on
    which they believe to be; `prefix`: a program that starts them."""
    children: list[Child] = []

    def start_all(num: int = 1, system: str = "", prefix: tuple[str, ...] = ()) -> list[Child]:
        command = [*prefix, sys.executable, "-c", HOLD, str(folder.path), system]
        pipe = subprocess.PIPE
        started = [
            subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
            for _ in range(num)
        ]
        children.extend(started)
        assert [says(child) for child in started] == ["ready"] * num
        for child in started:
            assert child.stdin
            child.stdin.write("\n")
            child.stdin.flush()
        return started

    yield start_all
    for child in children:
        child.kill()
        child.communicate()


def says(child: Child) -> str:
    """Return the next line that a process prints."""
    assert child.stdout
    return child.stdout.readline().strip()


def newest(folder: RunFolder) -> Path:
    return max(folder.leases.iterdir())


def test_a_second_command_is_refused_with_host_pid_and_age(
    folder: RunFolder, start: Start
) -> None:
    (first,) = start()
    assert says(first) == "held"
    (second,) = start()
    told = says(second)
    expected = f"process {first.pid} on {os.uname().nodename} has held it for "
    assert told.startswith("name = 'a run': expected one that no other command") and told.endswith(
        "s; wait until it has ended, or stop it"
    )
    assert expected in told and seems_held(folder)
    first.communicate("")  # it ends
    assert not seems_held(folder)
    with holding(folder, "name"):
        assert newest(folder).name == "000002.json"
        with pytest.raises(InputError, match=f"process {os.getpid()} on"), holding(folder, "name"):
            pass
    assert not seems_held(folder)


@pytest.mark.parametrize("reaped", [True, False])
def test_the_lease_of_a_killed_process_ends(
    folder: RunFolder, start: Start, reaped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (child,) = start()
    assert says(child) == "held"
    child.kill()
    if reaped:
        child.wait()
    else:  # its entry stays, as in a container whose first process waits for none
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not seems_held(folder)
    monkeypatch.setattr(lease, "_SILENT_SECONDS", 60.0)
    began = time.monotonic()
    with holding(folder, "name"):
        assert time.monotonic() - began < 30.0  # without waiting for a sign of life


def test_another_process_with_the_id_of_a_dead_one_holds_nothing(folder: RunFolder) -> None:
    holder = Holder.here()
    other = replace(holder, pid=os.getppid(), started=holder.started + 1)
    folder.files.write(folder.leases / "000001.json", lease.as_json(vars(other)))
    with holding(folder, "name"):
        pass


def test_one_of_eight_takes_a_dead_holder_s_lease(folder: RunFolder, start: Start) -> None:
    (first,) = start()
    assert says(first) == "held"
    first.kill()
    racers = start(8)
    told = [says(racer) for racer in racers]
    assert told.count("held") == 1
    holder = racers[told.index("held")]
    refused = [each for each in told if each != "held"]
    assert all(f"process {holder.pid} on" in each for each in refused), refused


def test_one_of_eight_takes_the_lease_of_a_holder_elsewhere(
    folder: RunFolder, start: Start
) -> None:
    (first,) = start(system="elsewhere")
    assert says(first) == "held"
    first.kill()
    told = [says(racer) for racer in start(8)]
    assert told.count("held") == 1, told


def test_a_holder_elsewhere_is_known_by_its_heartbeat(
    folder: RunFolder, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    (child,) = start(system="elsewhere")
    assert says(child) == "held"
    assert seems_held(folder)
    with pytest.raises(InputError, match=f"process {child.pid} on"), holding(folder, "name"):
        pass
    assert "waiting 1 s for a sign of life" in caplog.text
    child.kill()
    child.wait()
    began = time.monotonic()
    with holding(folder, "name"):
        assert time.monotonic() - began >= SILENT


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_was_set_changes_nothing(folder: RunFolder, start: Start, hours: int) -> None:
    """The time of a heartbeat says nothing, only that it changes does."""
    (child,) = start(system="elsewhere")
    assert says(child) == "held"
    set_to = time.time() + 3600 * hours
    os.utime(newest(folder), (set_to, set_to))
    with pytest.raises(InputError), holding(folder, "name"):
        pass
    child.kill()
    child.wait()
    os.utime(newest(folder), (set_to, set_to))
    with holding(folder, "name"):
        pass


def test_a_suspended_process_keeps_its_lease_on_its_own_machine(
    folder: RunFolder, start: Start
) -> None:
    (child,) = start()
    assert says(child) == "held"
    child.send_signal(signal.SIGSTOP)
    time.sleep(SILENT + 0.5)
    with pytest.raises(InputError, match=f"process {child.pid}"), holding(folder, "name"):
        pass
    child.send_signal(signal.SIGCONT)
    child.communicate("")
    with holding(folder, "name"):
        pass


def test_who_was_suspended_loses_the_lease_to_another_machine_and_says_so(
    folder: RunFolder, start: Start
) -> None:
    (child,) = start(system="elsewhere")
    assert says(child) == "held"
    child.send_signal(signal.SIGSTOP)
    with holding(folder, "name"):
        child.send_signal(signal.SIGCONT)
        out, _ = child.communicate("")
        assert "lost:" in out and f"process {os.getpid()} on" in out
        assert str(folder.path) in out
        assert seems_held(folder)  # what the other did last has not ended it
        require_held(folder)
    assert not seems_held(folder)


def test_nothing_is_written_once_the_lease_is_lost(folder: RunFolder) -> None:
    with pytest.raises(LeaseLostError), holding(folder, "name"):
        other = replace(Holder.here(), system="elsewhere", token="other")
        folder.files.write(folder.leases / "000002.json", lease.as_json(vars(other)))
        deadline = time.monotonic() + 5
        with pytest.raises(LeaseLostError, match="another command works on it"):
            while time.monotonic() < deadline:
                require_held(folder)
                time.sleep(BEAT / 4)
        raise KeyError  # whatever the block raises, the lease was lost
    require_held(folder)  # of a lease that this process does not have nothing is required


def test_a_block_that_fails_ends_its_lease(folder: RunFolder) -> None:
    with pytest.raises(KeyboardInterrupt), holding(folder, "name"):
        raise KeyboardInterrupt
    with holding(folder, "name"):
        pass


def test_two_threads_of_a_process_do_not_share_a_lease(folder: RunFolder) -> None:
    refused = []

    def second() -> None:
        try:
            with holding(folder, "name"):
                pass
        except InputError as error:
            refused.append(error)

    with holding(folder, "name"):
        thread = Thread(target=second)
        thread.start()
        thread.join()
    assert refused


def test_a_folder_that_is_moved_away_is_not_made_again(folder: RunFolder, tmp_path: Path) -> None:
    with holding(folder, "name"):
        folder.path.rename(tmp_path / "moved")
        time.sleep(2 * BEAT)
    assert not folder.path.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '{"pid": "x"}'])
def test_a_damaged_lease_is_taken_over_once_it_is_silent(
    folder: RunFolder, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_SILENT_SECONDS", 0.5)
    folder.files.write(folder.leases / "000007.json", content)
    assert seems_held(folder)  # it is new
    with holding(folder, "name"):
        assert newest(folder).name == "000008.json"


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare, of util-linux")
def test_a_holder_in_another_container_is_not_looked_for_by_its_id(
    folder: RunFolder, start: Start
) -> None:
    """Its id is that of another process here, or of none."""
    apart = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
    probe = subprocess.run([*apart, "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("this process may not make a namespace")
    (child,) = start(prefix=apart)
    assert says(child) == "held"
    with pytest.raises(InputError, match="process 1 on"), holding(folder, "name"):
        pass
    child.kill()
    child.communicate()  # until the process within has ended too, which may beat once more
    with holding(folder, "name"):
        pass


def test_ages_in_words() -> None:
    assert [lease._in_words(seconds) for seconds in (-3600, 0.4, 59.6, 61, 7260)] == [
        *("0 s", "0 s", "1 min 0 s", "1 min 1 s", "2 h 1 min")
    ]
