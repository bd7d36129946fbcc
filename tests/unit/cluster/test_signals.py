"""Signals that ask a command to end, in processes of their own without Ray."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

BEGIN = """
import os, signal, subprocess, sys, threading, time
from pipelines.cluster import signals

def ready():
    print("ready", flush=True)
"""


@pytest.fixture(autouse=True)
def none_is_ignored() -> Iterator[None]:
    """Undo what `nohup` does, and a shell to what it starts in the background: a process that is
    started ignores the signals that this one ignores."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ignored = [number for number in numbers if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def started(code: str, **settings: object) -> Iterator["subprocess.Popen[str]"]:
    """Run code in another process; the block begins when it has called `ready`."""
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,  # type: ignore[call-overload]
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def exit_code(process: "subprocess.Popen[str]", seconds: float = 20.0) -> int:
    return process.wait(seconds)


WAITING = """
with signals.handled_signals():
    try:
        ready()
        time.sleep(60)
    except KeyboardInterrupt:
        os._exit(signals.exit_code())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_interrupts_and_its_number_is_the_exit_code(number: int) -> None:
    with started(WAITING) as process:
        process.send_signal(number)
        assert exit_code(process) == 128 + number
        assert "stopping in order; a second signal ends at once" in process.stderr.read()


HANDLERS_OF_LIBRARIES = """
with signals.handled_signals():
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        ready()
        time.sleep(60)
    except KeyboardInterrupt:
        os._exit(signals.exit_code())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_no_handler_of_a_library_takes_a_signal(number: int) -> None:
    with started(HANDLERS_OF_LIBRARIES) as process:
        process.send_signal(number)
        assert exit_code(process) == 128 + number


CLOSING = """
with signals.handled_signals():
    try:
        try:
            ready()
            time.sleep(60)
        finally:
            print("closing", flush=True)
            {close}
    except KeyboardInterrupt:
        os._exit(signals.exit_code())
"""


@pytest.mark.parametrize("close", ["time.sleep(60)", "threading.Event().wait()"])
def test_a_second_signal_ends_at_once(close: str) -> None:
    with started(CLOSING.format(close=close)) as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "closing\n"
        process.send_signal(signal.SIGTERM)
        assert exit_code(process) == 143  # long before the minute is over


def test_a_second_signal_ends_a_main_thread_that_computes_in_c() -> None:
    code = """
    from hashlib import pbkdf2_hmac
    with signals.handled_signals():
        threading.Timer(0.5, ready).start()
        pbkdf2_hmac("sha256", b"", b"", 10**9)  # one call, in which no handler of Python's runs
    """
    with started(code) as process:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert exit_code(process) == 143


def test_a_deferred_block_is_finished_first() -> None:
    code = """
    with signals.handled_signals():
        try:
            with signals.deferred():
                ready()
                while not signals.received():
                    time.sleep(0.01)
                time.sleep(0.2)
                print("finished", flush=True)
            print("not reached", flush=True)
        except signals.Stopped:
            with signals.deferred():  # of the way out: not interrupted once more
                pass
            print("out", flush=True)
            os._exit(signals.exit_code())
    """
    with started(code) as process:
        process.send_signal(signal.SIGTERM)
        assert exit_code(process) == 143
        assert process.stdout.read() == "finished\nout\n"


def test_whoever_handles_sigusr1_is_asked_to_end_as_tune_is() -> None:
    code = """
    asked = threading.Event()
    with signals.handled_signals():
        with signals.handlers_restored(signal.SIGUSR1):
            signal.signal(signal.SIGUSR1, lambda *_: asked.set())
            ready()
            asked.wait(60)
        try:
            signals.check()  # before the next long work
        except signals.Stopped:
            os._exit(signals.exit_code())
    """
    with started(code) as process:
        process.send_signal(signal.SIGTERM)
        assert exit_code(process) == 143


def test_ignored_signals_stay_ignored() -> None:
    def ignore() -> None:  # as nohup does
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with started(WAITING, preexec_fn=ignore) as process:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert exit_code(process) == 143


@pytest.mark.parametrize("fork", ["None", "lambda: None"])  # Python starts them differently
def test_a_signal_to_all_processes_does_not_end_the_children_first(fork: str) -> None:
    code = f"""
    with signals.handled_signals():
        child = subprocess.Popen(["sleep", "60"], preexec_fn={fork})
        try:
            ready()
            time.sleep(60)
        except signals.Stopped:
            time.sleep(0.2)
            was_alive = child.poll() is None
            child.kill()
            os._exit(signals.exit_code() if was_alive else 1)
    """
    with started(code, start_new_session=True) as process:
        os.killpg(process.pid, signal.SIGTERM)
        assert exit_code(process) == 143


def test_another_program_in_this_process_takes_signals() -> None:
    code = """
    with signals.handled_signals():
        signals.release()
        program = "import time; print('ready', flush=True); time.sleep(60)"
        os.execv(sys.executable, [sys.executable, "-c", program])
    """
    with started(code) as process:
        process.terminate()
        assert exit_code(process) == -signal.SIGTERM


def test_the_process_is_afterwards_what_it_was() -> None:
    code = """
    def state():
        handlers = [signal.getsignal(each) for each in signal.valid_signals()]
        return handlers, signal.pthread_sigmask(signal.SIG_BLOCK, ()), threading.active_count()

    before = state()
    with signals.handled_signals():
        assert state() != before
    assert state() == before
    ready()
    time.sleep(60)
    """
    with started(code) as process:
        process.send_signal(signal.SIGTERM)
        assert exit_code(process) == -signal.SIGTERM


def test_without_an_owner_nothing_was_received() -> None:
    from pipelines.cluster import signals

    signals.check()
    assert signals.received() is None and signals.exit_code() == 130
