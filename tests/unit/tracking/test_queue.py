"""The delivery queue over a tracking system in memory, which is down, slow or refuses."""

import logging
import os
import threading
from pathlib import Path

import pytest
from support.journals import METRIC, open_journal, write_epochs
from support.tracking import BACKEND, SETTING, MemoryBackend, MemoryServer

from pipelines.store.journal import EvaluationJournal, Outcome
from pipelines.store.layout import Store
from pipelines.tracking import queue
from pipelines.tracking.base import RunWriter
from pipelines.tracking.queue import DeliveryQueue, open_tracker, pending_journals, reason

URI = "memory://test"
LONG = 60.0  # seconds, after which a test has failed


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other soon."""
    for name in ("_FIRST_WAIT", "_LONGEST_WAIT", "_HURRIED_WAIT"):
        monkeypatch.setattr(queue, name, 0.01)


@pytest.fixture
def server(memory_server: MemoryServer) -> MemoryServer:
    return memory_server


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(tmp_path / "store")


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings of the pipeline."""
    ours = [r for r in caplog.records if r.name.startswith("pipelines")]
    return [r.getMessage() for r in ours if r.levelno >= logging.WARNING]


def test_what_is_put_in_is_delivered(server: MemoryServer, store: Store) -> None:
    journals = [open_journal(store.run(name).path) for name in "ab"]
    with open_tracker(URI, store) as tracker:
        for epoch in (1, 2):
            for journal in journals:
                write_epochs(journal, epoch)
                tracker.sync(journal, upto=epoch)
        assert tracker.flush(LONG) and tracker.num_pending == 0
        ids = [tracker.run_id(journal) for journal in journals]
    assert ids == [server.run(name).row.run_id for name in "ab"]
    for name in "ab":
        assert server.run(name).points[METRIC] == {1: -1.0, 2: -2.0}
        assert server.run(name).row.status == "RUNNING"


def test_sync_returns_while_the_server_keeps_its_caller_waiting(
    server: MemoryServer, store: Store
) -> None:
    server.gate.clear()
    journal = open_journal(store.run("a").path)
    tracker = DeliveryQueue(BACKEND, URI, store)
    tracker.sync(journal, upto=1)
    server.await_requests(1)
    for epoch in range(1000):
        tracker.sync(journal, upto=epoch)  # would wait a minute for the server's answer
    assert server.requests == [("a", 1)]
    assert tracker.num_pending == 2 and not tracker.flush(0.01)
    server.gate.set()
    assert tracker.close(LONG) and tracker.num_pending == 0
    assert server.requests == [("a", 1), ("a", 999)]  # what came meanwhile is one delivery
    with pytest.raises(RuntimeError, match="closed"):
        tracker.sync(journal)


def test_the_farther_of_two_deliveries_counts(server: MemoryServer, store: Store) -> None:
    journals = [open_journal(store.run(name).path) for name in "abc"]
    server.gate.clear()
    tracker = DeliveryQueue(BACKEND, URI, store)
    tracker.sync(journals[0])
    server.await_requests(1)
    for upto in (5, 3):
        tracker.sync(journals[1], upto)
    for each in (5, None, 3):
        tracker.sync(journals[2], each)
    server.gate.set()
    assert tracker.close(LONG)
    assert server.requests[1:] == [("b", 5), ("c", None)]


def test_after_an_outage_everything_is_delivered(
    server: MemoryServer, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    journals = [open_journal(store.run(name).path) for name in "ab"]
    with open_tracker(URI, store) as tracker:
        for journal in journals:
            write_epochs(journal, 1, pictures=True)
            tracker.sync(journal)
        assert tracker.flush(LONG)
        server.is_down = True
        seen = len(server.requests)
        for journal in journals:
            write_epochs(journal, 2, 3)
            tracker.sync(journal)
        server.await_requests(seen + 6)  # again and again
        assert not tracker.flush(0.01) and tracker.num_pending == 2
        journals[0].close(Outcome("completed", 3))
        tracker.sync(journals[0])
        server.is_down = False
        assert tracker.flush(LONG)
    for name in "ab":
        assert list(server.run(name).points[METRIC]) == [1, 2, 3]
    assert [server.run(name).row.status for name in "ab"] == ["FINISHED", "RUNNING"]
    first, last = messages(caplog)  # one when it begins and one when it is over
    assert "memory://test does not take what is recorded (the server is down)" in first
    assert "training goes on" in first and "again, after" in last


def test_attempts_pause_longer_and_longer_once_every_journal_has_failed(
    server: MemoryServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_FIRST_WAIT", 0.5)
    monkeypatch.setattr(queue, "_LONGEST_WAIT", 30.0)
    pauses: list[tuple[int, float]] = []

    class Impatient(DeliveryQueue):
        """Notes its pauses instead of making them."""

        def _pause(self, seconds: float) -> None:
            pauses.append((len(server.requests), seconds))

    server.is_down = True
    server.gate.clear()
    tracker = Impatient(MemoryAt(server), URI, store)
    for name in "ab":
        tracker.sync(open_journal(store.run(name).path))
    server.gate.set()
    server.await_requests(12)
    server.is_down = False
    assert tracker.close(LONG)
    # Both have failed once; after that each attempt is followed by a pause.
    assert [requests for requests, _ in pauses[:4]] == [2, 3, 4, 5]
    assert [seconds for _, seconds in pauses[:8]] == [0.5, 1, 2, 4, 8, 16, 30, 30]


class MemoryAt(MemoryBackend):
    """Has one server."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__()
        self.servers[URI] = server


def test_a_journal_that_always_fails_holds_up_no_other(
    server: MemoryServer, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    bad = open_journal(store.run("bad").path)
    server.refused.add("bad")
    good = open_journal(store.run("good").path)
    write_epochs(good, 1)
    tracker = DeliveryQueue(BACKEND, URI, store)
    for journal in (bad, good, bad):
        tracker.sync(journal)
    server.await_requests(5, "bad")
    assert tracker.run_id(good) == server.run("good").row.run_id
    assert tracker.run_id(bad) is None and tracker.num_pending == 1
    write_epochs(good, 2)
    tracker.sync(good)
    server.await_requests(2, "good")
    seen = [name for name, _ in server.requests].count("bad")
    server.await_requests(seen + 2, "bad")  # so the good one's delivery has ended
    assert list(server.run("good").points[METRIC]) == [1, 2]
    assert not tracker.close(0.01)
    assert len([text for text in messages(caplog) if "does not take" in text]) == 1


def test_draining_goes_on_as_long_as_something_is_delivered(
    server: MemoryServer, store: Store
) -> None:
    """Three deliveries, and one that is refused."""
    journals = [open_journal(store.run(name).path) for name in ("a", "b", "c", "refused")]
    server.refused.add("refused")
    server.seconds = 0.1
    with DeliveryQueue(BACKEND, URI, store) as tracker:
        for journal in journals:
            tracker.sync(journal)
        assert not tracker.drain(3600.0)  # of what is refused it does not wait for more
        assert [bool(tracker.run_id(each)) for each in journals] == [True, True, True, False]
        server.refused.clear()
        server.seconds = 0.0
        assert tracker.drain(LONG)


def test_draining_ends_if_nothing_answers(server: MemoryServer, store: Store) -> None:
    server.gate.clear()
    tracker = DeliveryQueue(BACKEND, URI, store)
    tracker.sync(open_journal(store.run("a").path))
    assert not tracker.drain(0.2)
    server.gate.set()
    assert tracker.drain(LONG) and tracker.close(1.0)


def test_what_an_outage_holds_back_stays_in_the_journals(
    server: MemoryServer,
    store: Store,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue, "_FINISH_SECONDS", 0.01)
    server.is_down = True
    journal = open_journal(store.run("a").path)
    write_epochs(journal, 1)
    journal.close(Outcome("completed", 1))
    with open_tracker(URI, store) as tracker:
        tracker.sync(journal)
        server.await_requests(1)
        tracker.finish()
    assert not server.runs
    assert messages(caplog)[-1] == (
        "memory at memory://test lacks some results; `genpipe runs` delivers them"
    )
    assert [each.run_folder for each in pending_journals(store, URI, BACKEND)] == [
        journal.run_folder
    ]

    server.is_down = False
    with open_tracker(URI, store) as tracker:
        for pending in pending_journals(store, URI, BACKEND):
            tracker.sync(pending)
        assert tracker.flush(LONG)
    assert server.run("a").row.status == "FINISHED"
    assert list(pending_journals(store, URI, BACKEND)) == []


def test_an_evaluation_that_an_outage_held_back_is_delivered_later(
    server: MemoryServer, store: Store
) -> None:
    run = open_journal(store.run("a").path)
    with open_tracker(URI, store) as tracker:
        tracker.sync(run)
        assert tracker.flush(LONG)
        server.is_down = True
        run_id = str(tracker.run_id(run))
        evaluation = store.evaluation(run_id)
        evaluation.write(run_id, {"test/fd": 1.0}, {"test_digest": "d"}, {})
        tracker.sync(evaluation)
        server.await_requests(3)
        assert not tracker.flush(0.01)
        # Another one, made before the first was delivered, takes its place.
        evaluation.write(run_id, {"test/fd": 2.0}, {"test_digest": "d"}, {})
        tracker.sync(evaluation)
        server.is_down = False
        assert tracker.flush(LONG)
    row = server.run("a").row
    assert row.metrics["test/fd"] == 2.0 and row.tags["test_digest"] == "d"
    assert list(pending_journals(store, URI, BACKEND)) == []
    evaluation.write(run_id, {"test/fd": 3.0}, {}, {})
    (pending,) = pending_journals(store, URI, BACKEND)
    assert isinstance(pending, EvaluationJournal) and pending.folder == evaluation.folder


def test_what_is_pending_depends_on_the_outcome_and_the_place(
    server: MemoryServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKEND.servers, "memory://other", MemoryServer())
    journal = open_journal(store.run("a").path)
    assert list(pending_journals(store, URI, BACKEND)) == []  # it goes on
    journal.close(Outcome("interrupted", 0))
    BACKEND.writer(URI, store).deliver(journal)
    assert list(pending_journals(store, URI, BACKEND)) == []
    assert len(list(pending_journals(store, "memory://other", BACKEND))) == 1
    journal.close(Outcome("completed", 0))
    assert len(list(pending_journals(store, URI, BACKEND))) == 1


def test_a_client_that_cannot_be_imported_at_first_stops_nothing(
    server: MemoryServer, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    class Flaky(MemoryBackend):
        calls = 0

        def writer(self, uri: str, store: Store) -> RunWriter:
            self.calls += 1
            if self.calls < 3:
                raise ImportError("no client")
            return super().writer(uri, store)

    backend = Flaky()
    backend.servers[URI] = server
    with DeliveryQueue(backend, URI, store) as tracker:
        tracker.sync(open_journal(store.run("a").path))
        assert tracker.flush(LONG)
    assert server.run("a") and "(no client)" in messages(caplog)[0]


def test_the_client_s_environment_is_set_within_the_block(
    server: MemoryServer, store: Store
) -> None:
    assert SETTING not in os.environ
    with open_tracker(URI, store):
        assert os.environ[SETTING] == "used"
    assert SETTING not in os.environ


def test_an_error_in_the_block_ends_the_queue_without_a_wait(
    server: MemoryServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.gate.clear()  # a wait would last until the test's timeout
    tracker = open_tracker(URI, store)

    def fail() -> None:
        with tracker:
            tracker.sync(open_journal(store.run("a").path))
            raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        fail()
    assert SETTING not in os.environ
    with pytest.raises(RuntimeError, match="closed"):
        tracker.sync(open_journal(store.run("a").path))


def test_several_threads_may_put_journals_in(server: MemoryServer, store: Store) -> None:
    def work(name: str) -> None:
        journal = open_journal(store.run(name).path)
        for epoch in (1, 2, 3):
            write_epochs(journal, epoch)
            tracker.sync(journal, epoch)

    with open_tracker(URI, store) as tracker:
        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert tracker.flush(LONG)
    for name in "abcd":
        assert list(server.run(name).points[METRIC]) == [1, 2, 3]


def test_a_run_id_is_that_of_the_place_it_was_delivered_to(
    server: MemoryServer, store: Store
) -> None:
    journal = open_journal(store.run("a").path)
    with open_tracker("memory://ada:secret@test", store, lambda uri: Password()) as tracker:
        assert tracker.run_id(journal) is None
        journal.mark_delivered({"uri": "memory://ada@test", "run_id": "x"})
        assert tracker.run_id(journal) == "x"
        journal.mark_delivered({"uri": "memory://other", "run_id": "y"})
        assert tracker.run_id(journal) == "x"  # what was delivered elsewhere since changes nothing
        assert journal.delivered()["run_id"] == "y"


class Password(MemoryBackend):
    """Has a server for a URI with a password."""

    def __init__(self) -> None:
        super().__init__()
        self.servers["memory://ada@test"] = MemoryServer()


def test_the_reason_of_an_error_is_at_the_bottom_of_its_chain() -> None:
    def fail(hide: bool) -> None:
        try:
            raise ValueError("the \n cause")
        except ValueError as error:
            if hide:
                raise KeyError("outer") from None
            raise KeyError("outer") from error

    for hide, expected in ((False, "the cause"), (True, "'outer'")):
        with pytest.raises(KeyError) as caught:
            fail(hide)
        assert reason(caught.value) == expected
    assert reason(ValueError()) == "ValueError"
    assert len(reason(ValueError("x" * 900))) == 200
