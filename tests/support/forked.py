"""A web server that loads its client before it forks: `python -m support.forked`.

The parent uses the client in every way, forks children that use it at once, and goes on using it;
the lines it prints are JSON, one a process: what came back from each way.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from support.yard import catalogue
from taskyard.client import EnqueueRequest, Taskyard

CHILDREN = 3
TIMEOUT_S = 30


def act(value: int) -> dict[str, Any]:
    return {"do": "return", "value": value}


def use(yard: Taskyard, base: int) -> list[Any]:
    """The results of jobs that were enqueued and awaited in every way: `base` and the next 6."""
    one = yard.enqueue("exec_act", act(base))
    many = yard.enqueue_many(
        EnqueueRequest(job_type="exec_act", payload=act(base + number)) for number in (1, 2)
    )
    results = [job.result(TIMEOUT_S) for job in (one, *many)]

    async def service() -> list[Any]:
        calls = [yard.aenqueue("exec_act", act(base + number)) for number in (3, 4, 5, 6)]
        jobs = await asyncio.gather(*calls)
        return list(await asyncio.gather(*(job.aresult(TIMEOUT_S) for job in jobs)))

    return results + asyncio.run(service())


@contextmanager
def busy(yard: Taskyard) -> Iterator[None]:
    """Other threads of the parent are in the middle of calls, and hold locks."""
    done = threading.Event()

    def enqueue() -> None:
        while not done.is_set():
            yard.enqueue("plan_act", act(-1))

    async def enqueue_async() -> None:
        while not done.is_set():
            await asyncio.gather(*(yard.aenqueue("plan_act", act(-1)) for _ in range(9)))

    acts: list[Callable[[], None]] = [enqueue, enqueue, lambda: asyncio.run(enqueue_async())]
    threads = [threading.Thread(target=each) for each in acts]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def in_child(yard: Taskyard, number: int) -> int:
    """Fork; the child uses the client, prints and ends as a server's worker does."""
    child = os.fork()
    if child == 0:
        say(use(yard, 10 * number))
        yard.close()
        sys.exit()
    return child


def say(results: list[Any]) -> None:
    os.write(1, json.dumps(results).encode() + b"\n")


def main() -> None:
    with Taskyard(catalogue=catalogue()) as yard:
        say(use(yard, 0))
        if "busy" in sys.argv:
            with busy(yard):
                children = [in_child(yard, number) for number in range(1, CHILDREN + 1)]
        else:
            children = [in_child(yard, number) for number in range(1, CHILDREN + 1)]
        # The children's ends must not have ended what the parent has open.
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        say(use(yard, 10 * (CHILDREN + 1)))
    sys.exit(max(codes, key=abs))


if __name__ == "__main__":
    main()
