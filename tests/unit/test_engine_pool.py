"""How often a pool looks for a death, and for whose; what it gives up at a drain."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import kombu.asynchronous
import pytest
from billiard.pool import CLOSE, RUN
from billiard.queues import _SimpleQueue
from celery.concurrency import asynpool

from taskyard.engine.prefork_pool import LOOK_AGAIN_S, LOOKS, JobPool, OwnPipesPool


class Hub:
    """A loop whose timers a test fires by hand."""

    def __init__(self) -> None:
        self.timers: deque[tuple[float, Callable[[], None]]] = deque()

    def call_later(self, delay_s: float, call: Callable[..., None], *args: Any) -> None:
        self.timers.append((delay_s, lambda: call(*args)))

    def fire(self) -> float:
        delay_s, call = self.timers.popleft()
        call()
        return delay_s


class Process:
    """A process whose files are closed; it can be waited for after `looks` looks."""

    def __init__(self, looks: float) -> None:
        self.looks = looks

    def _is_alive(self) -> bool:
        self.looks -= 1
        return self.looks >= 0


class Job:
    """What the pool knows of a job of which no process has answered."""

    def __init__(self, *, accepted: bool = False, write_to: object | None = None) -> None:
        self._accepted, self._write_to = accepted, write_to
        self.given_up = False

    def discard(self) -> None:
        self.given_up = True


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> JobPool:
    """One without processes, whose every look at them is counted in `looks`."""
    made = JobPool.__new__(JobPool)
    made._pool, made._waiting_to_start = [], set()
    made.looks = 0

    def maintain_pool() -> None:
        made.looks += 1
        made._pool[:] = [process for process in made._pool if process._is_alive()]

    made.maintain_pool = maintain_pool
    monkeypatch.setattr(asynpool.AsynPool, "_untrack_child_process", lambda *_: None)
    return made


def test_a_death_that_cannot_be_seen_yet_is_looked_for_again(pool: JobPool, hub: Hub) -> None:
    process = Process(looks=3)
    pool._pool.append(process)
    pool._event_process_exit(hub, process)
    assert [hub.fire(), hub.fire(), hub.fire()] == [LOOK_AGAIN_S] * 3
    assert (pool._pool, list(hub.timers)) == ([], [])
    # Nobody else was looked at meanwhile.
    assert pool.looks == 2


@pytest.mark.parametrize("kind", [JobPool, OwnPipesPool])
def test_a_death_that_is_not_seen_yet_ends_no_worker_that_comes_back_to_its_broker(
    kind: type[OwnPipesPool],
) -> None:
    """The broker is lost between the end of a process and the look that sees it."""
    made, process = kind.__new__(kind), Process(looks=1)
    made._pool, made._waiting_to_start = [process], set()
    made.maintain_pool = lambda: None
    inlet, outlet = os.pipe()
    hub = kombu.asynchronous.Hub()
    process._popen = SimpleNamespace(sentinel=inlet)
    made._track_child_process(process, hub)
    made._event_process_exit(hub, process)
    made._track_child_process(process, hub)
    assert hub.readers == {}
    os.close(inlet)
    os.close(outlet)


def test_a_process_that_closed_its_files_and_lives_is_left_to_celery(
    pool: JobPool, hub: Hub
) -> None:
    process = Process(looks=float("inf"))
    pool._pool.append(process)
    pool._event_process_exit(hub, process)
    fired = 0
    while hub.timers:
        hub.fire()
        fired += 1
    assert fired == LOOKS
    assert pool._pool == [process]


def test_a_process_that_never_came_up_is_not_replaced_in_a_hurry(pool: JobPool, hub: Hub) -> None:
    process = Process(looks=float("inf"))
    pool._pool.append(process)
    pool._waiting_to_start.add(process)
    pool._event_process_exit(hub, process)
    assert not hub.timers


def test_a_drain_gives_up_only_what_no_process_can_have_seen(pool: JobPool) -> None:
    process = object()
    jobs = {
        "running": Job(accepted=True, write_to=process),
        "written": Job(write_to=process),
        "not written": Job(),
        "put back by a death": Job(write_to=process),
    }
    pool._state, pool._cache = CLOSE, jobs
    pool._active_writers = set()
    pool.outbound_buffer = deque([jobs["not written"], jobs["put back by a death"]])
    pool.flush()
    assert [name for name, job in jobs.items() if job.given_up] == [
        "not written",
        "put back by a death",
    ]
    assert not pool.outbound_buffer


# --- what a dead process said -----------------------------------------------------------------

WORDS = [("outcome", "x" * 40_000), ("goodbye", 0)]


class Dead:
    """A process that is dead, and the pipe into which it spoke."""

    def __init__(self) -> None:
        self.outq = _SimpleQueue(rnonblock=True)
        self.outqR_fd = self.outq._reader.fileno()

    def said(self, raw: bytes) -> None:
        os.write(self.outq._writer.fileno(), raw)

    def _is_alive(self) -> bool:
        return False


@pytest.fixture
def dead() -> Iterator[Dead]:
    process = Dead()
    yield process
    process.outq.close()


@pytest.fixture(params=[JobPool, OwnPipesPool], ids=["native", "installed"])
def pool_of_dead(request: pytest.FixtureRequest) -> Any:
    return request.param.__new__(request.param)


@pytest.fixture
def heard(pool_of_dead: Any, dead: Dead) -> list[Any]:
    """What the pool hears; its event loop runs only where a test calls `handle_event`."""
    results = pool_of_dead.ResultHandler.__new__(pool_of_dead.ResultHandler)
    words: list[Any] = []
    results.fileno_to_outq, results.on_state_change = {dead.outqR_fd: dead}, words.append
    results.register_with_event_loop(kombu.asynchronous.Hub())
    pool_of_dead._result_handler, pool_of_dead._state = results, RUN
    return words


def framed(*words: Any) -> bytes:
    bodies = [pickle.dumps(word) for word in words]
    return b"".join(struct.pack("!i", len(body)) + body for body in bodies)


def test_what_a_process_said_and_nobody_has_read_is_heard_after_its_death(
    pool_of_dead: Any, dead: Dead, heard: list[Any]
) -> None:
    dead.said(framed(*WORDS))
    pool_of_dead.process_flush_queues(dead)
    assert heard == WORDS


def test_the_rest_of_what_was_half_read_is_heard_after_a_death(
    pool_of_dead: Any, dead: Dead, heard: list[Any]
) -> None:
    """Read from its middle it would be nonsense, and the job lost whose outcome it was."""
    raw = framed(*WORDS)
    dead.said(raw[:20_000])
    pool_of_dead._result_handler.handle_event(dead.outqR_fd)
    assert heard == []
    dead.said(raw[20_000:])
    pool_of_dead.process_flush_queues(dead)
    assert heard == WORDS


def test_a_process_killed_in_the_middle_of_its_words_is_not_waited_for(
    pool_of_dead: Any, dead: Dead, heard: list[Any]
) -> None:
    dead.said(framed(*WORDS)[:20_000])
    pool_of_dead._result_handler.handle_event(dead.outqR_fd)
    pool_of_dead.process_flush_queues(dead)
    assert heard == []


def test_what_each_process_would_load_is_loaded_before_the_fork() -> None:
    """With cffi, billiard parses C in each process: loaded before, the memory is shared."""
    code = (
        "import sys, cffi\n"
        "from taskyard.engine.prefork_pool import load_for_children\n"
        "assert 'pycparser.c_parser' not in sys.modules\n"
        "load_for_children()\n"
        "assert 'pycparser.c_parser' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
