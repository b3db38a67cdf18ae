"""The pipes of the pool: what a killed process has half read, what a new one has said."""

from __future__ import annotations

import operator
import os
import select
import signal
from collections.abc import Callable, Iterator
from inspect import isgenerator
from typing import Any

import pytest
from celery import Celery
from celery.concurrency import get_implementation
from celery.concurrency import thread as threads
from kombu.asynchronous import Hub, get_event_loop, set_event_loop

from support.waiting import eventually
from taskyard.engine.prefork_pool import InstalledTaskPool, JobPool, OwnPipesPool
from taskyard.install import install
from taskyard.settings import Settings

# A message that is read up to its middle: what follows looks like the length of a huge one.
ARGUMENT = "x" * 4_000
HALF_BYTES = 2_000
LARGER_THAN_A_PIPE = 1_000_000


@pytest.fixture
def loop() -> Iterator[Any]:
    before, hub = get_event_loop(), Hub()
    set_event_loop(hub)
    yield hub
    set_event_loop(before)
    hub.close()


@pytest.fixture(params=[JobPool, OwnPipesPool], ids=["native", "installed"])
def pool(request: pytest.FixtureRequest, loop: Any) -> Iterator[Any]:
    made = request.param(1, threads=False)
    made.register_with_event_loop(loop)
    yield made
    for process in made._pool:
        os.kill(process.pid, signal.SIGKILL)
    made.terminate()


@pytest.fixture
def await_(loop: Any) -> Callable[[Callable[[], object], str], None]:
    """Run the event loop until a condition holds."""
    ticks = loop.create_loop()
    # The loop waits for an event only where it has no timer that is due.
    loop.call_repeatedly(0.01, int)

    def run(condition: Callable[[], object], what: str) -> None:
        eventually(lambda: next(ticks) is not None or condition(), what, within_s=20)

    return run


def test_the_process_after_a_killed_one_does_the_next_job(
    pool: Any, await_: Callable[[Callable[[], object], str], None]
) -> None:
    (victim,) = pool._pool
    await_(lambda: victim.inqW_fd in pool._fileno_to_inq, "its first message")
    os.kill(victim.pid, signal.SIGSTOP)
    written = pool.apply_async(len, (ARGUMENT,))
    await_(lambda: written._write_to is victim and not pool._active_writers, "a written job")
    # What the process had read when it was killed.
    assert len(os.read(victim.inq._reader.fileno(), HALF_BYTES)) == HALF_BYTES
    # The broker is lost: jobs that no process has accepted are forgotten.
    pool.flush()
    os.kill(victim.pid, signal.SIGKILL)
    await_(lambda: victim not in pool._pool, "another process")
    results: list[int] = []
    pool.apply_async(len, ("next",), callback=results.append)
    await_(lambda: results, "the next job's result")
    assert results == [4]


def test_what_a_new_process_said_while_the_loop_stood_still_is_read_before_the_timers(
    pool: Any, loop: Any, await_: Callable[[Callable[[], object], str], None]
) -> None:
    (victim,) = pool._pool
    note = pool.on_process_up

    def note_unread(process: Any) -> None:
        note(process)
        # Else a fast process is heard in the very turn of the loop that has started it.
        loop.remove_reader(process.outqR_fd)

    pool.on_process_up = note_unread
    os.kill(victim.pid, signal.SIGKILL)
    await_(lambda: victim not in pool._pool and pool._waiting_to_start, "another process")
    (fresh,) = pool._waiting_to_start
    eventually(lambda: select.select([fresh.outqR_fd], [], [], 0)[0], "its first message")
    pool.read_new_processes()
    assert not pool._waiting_to_start


def test_an_outcome_that_was_half_read_when_the_broker_was_lost_is_heard_after_that(
    pool: Any, loop: Any, await_: Callable[[Callable[[], object], str], None]
) -> None:
    """Celery forgets with its event loop what it had read; the rest would be taken for a length."""
    (process,) = pool._pool
    await_(lambda: process.inqW_fd in pool._fileno_to_inq, "its first message")
    results: list[str] = []
    job = pool.apply_async(operator.mul, ("x", LARGER_THAN_A_PIPE), callback=results.append)
    await_(lambda: job._accepted, "its start")
    # Unread, the pipe is filled; stopped, the process does not go on while the first part is read.
    loop.remove_reader(process.outqR_fd)
    eventually(lambda: select.select([process.outqR_fd], [], [], 0)[0], "its outcome")
    os.kill(process.pid, signal.SIGSTOP)
    pool.handle_result_event(process.outqR_fd)
    assert isgenerator(loop.readers[process.outqR_fd][0])
    os.kill(process.pid, signal.SIGCONT)
    # What Celery does where it loses its broker.
    loop.reset()
    pool.flush()
    pool.register_with_event_loop(loop)
    loop.call_repeatedly(0.01, int)
    ticks = loop.create_loop()
    eventually(lambda: next(ticks) is not None or results, "the outcome", within_s=20)
    assert [len(result) for result in results] == [LARGER_THAN_A_PIPE]


def test_an_installed_app_with_celerys_prefork_pool_has_this_one_and_any_other_pool_stays() -> None:
    settings = Settings(redis_url="redis://127.0.0.1:1/0")
    for own, expected in (("prefork", InstalledTaskPool), ("threads", threads.TaskPool)):
        app = Celery("pools", broker="memory://", set_as_current=False)
        app.conf.worker_pool = own
        install(app, settings=settings)
        assert get_implementation(app.conf.worker_pool) is expected
