"""The queue and thread that write beside an app."""

from __future__ import annotations

import os
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest

from taskyard.install.background_queue import Backlog

SOON_S = 10.0


class Collector:
    """A thread's work: it keeps what it takes, once it may."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.threads: set[int] = set()
        self.open = threading.Event()

    def __call__(self, waiting: queue.Queue[int | None]) -> None:
        self.threads.add(threading.get_ident())
        self.open.wait(SOON_S)
        while (item := waiting.get()) is not None:
            self.seen.append(item)


def test_closing_waits_for_all_that_was_put() -> None:
    work = Collector()
    backlog = Backlog("test", 100, work)
    work.open.set()
    for item in range(100):
        try:
            backlog.put(item)
        except queue.Full:
            pytest.fail("the thread does not take what is put")
    assert backlog.close(SOON_S)
    assert work.seen == list(range(100))


def test_threads_that_begin_at_once_share_one_queue_and_one_thread() -> None:
    work, together = Collector(), threading.Barrier(16)
    backlog = Backlog("test", 100, work)

    def begin(item: int) -> None:
        together.wait(SOON_S)
        backlog.put(item)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(begin, range(16)))
    work.open.set()
    assert backlog.close(SOON_S)
    assert sorted(work.seen) == list(range(16))
    assert len(work.threads) == 1


def test_a_full_one_refuses_at_once_and_closes_in_time() -> None:
    work = Collector()
    backlog = Backlog("test", 1, work)
    backlog.put(1)
    with pytest.raises(queue.Full):
        backlog.put(2)
    started = monotonic()
    assert not backlog.close(0.1)
    assert monotonic() - started < SOON_S / 2
    work.open.set()


def test_a_full_one_that_moves_again_is_written_before_it_closes() -> None:
    work = Collector()
    backlog = Backlog("test", 1, work)
    backlog.put(1)
    threading.Timer(0.1, work.open.set).start()
    assert backlog.close(SOON_S)
    assert work.seen == [1]


def test_it_begins_anew_after_it_was_closed() -> None:
    work = Collector()
    backlog = Backlog("test", 10, work)
    work.open.set()
    for item in (1, 2):
        backlog.put(item)
        assert backlog.close(SOON_S)
    assert work.seen == [1, 2]


def test_closing_what_never_began_is_nothing() -> None:
    assert Backlog("test", 1, Collector()).close(0)


# Later Pythons warn of what is tested here: a fork beside a thread.
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_has_a_thread_and_a_queue_of_its_own() -> None:
    work = Collector()
    backlog = Backlog("test", 10, work)
    backlog.put(1)
    child = os.fork()
    if child == 0:
        work.open.set()
        backlog.put(2)
        closed = backlog.close(SOON_S)
        os._exit(0 if closed and work.seen == [2] else 1)
    _, status = os.waitpid(child, 0)
    work.open.set()
    assert status == 0
    assert backlog.close(SOON_S)
    assert work.seen == [1]
