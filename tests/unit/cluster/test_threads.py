"""Work in a thread of its own."""

import threading

import pytest

from pipelines.cluster.threads import run_in_thread


def test_the_result_or_error_of_the_work_arrives() -> None:
    assert run_in_thread(threading.current_thread).result() is not threading.main_thread()

    def fail() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        run_in_thread(fail).result()


def test_the_thread_does_not_keep_the_process_alive() -> None:
    assert run_in_thread(threading.current_thread).result().daemon
