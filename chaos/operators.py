"""Operators under a storm: verbs at random on the jobs that come in, several operators at once.

Each operator draws from a seed of its own: the verb, the job, and how long it waits before. What it
asked for and did not get stands in the audit log, where the auditor reads it.
"""

from __future__ import annotations

import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from chaos.cluster import Cluster
from taskyard.access import Identity, Role
from taskyard.control import Control, replay
from taskyard.errors import NotFound, PurgeStopped, Refused, ServerRefused, ServerUnreachable

__all__ = ["Operators", "operating"]

_OPERATORS: Final = 3
_WAIT_S: Final = (0.05, 0.4)
_WHY: Final = "The tenant asked for it in the course of this storm"
_SUMMARY: Final = "Done by hand in the course of this storm"
# Most verbs meet a job that waits or runs; the rest meet any job, most of them ended.
_RECENT: Final = 40
_LATE: Final = 0.2
# Some operators act on the job that another one has just acted on.
_SAME: Final = 0.2
_DOWN: Final = (ServerUnreachable, ServerRefused, SQLAlchemyError, RedisError)
_OPEN_LETTERS: Final = """
    SELECT id FROM dead_letter_queue WHERE status = 'pending' ORDER BY decided_at DESC LIMIT 50
"""


@dataclass
class Operators:
    """What operators do, to jobs of `job_ids`, which grows; `asked` counts what became of it."""

    cluster: Cluster
    job_ids: Sequence[str]
    seed: str
    asked: Counter[str] = field(default_factory=Counter)
    _last: str = field(default="", init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def act(self, number: int, stop: threading.Event) -> None:
        """Act as the operator with this number until `stop` is set."""
        rng = random.Random(f"{self.seed} operator {number}")  # noqa: S311 - repeatable
        control = Control(self.cluster.engine, self.cluster.records, _operator(number), wait_s=0)
        while not stop.wait(rng.uniform(*_WAIT_S)):
            if self.job_ids:
                self._act_once(rng, control)

    def _act_once(self, rng: random.Random, control: Control) -> None:
        name = rng.choice(_VERBS)
        try:
            _ACTS[name](self, rng, control)
        except Refused:
            became = "refused at once"
        except NotFound:
            became = "found nothing"
        except PurgeStopped:
            became = "stopped"
        except _DOWN:
            # A transaction whose answer was lost may have been committed: the audit log knows.
            became = "no server"
        else:
            became = "requested"
        with self._lock:
            self.asked[f"{name}: {became}"] += 1

    def job(self, rng: random.Random) -> str:
        """The job to act on."""
        late, same = rng.random() < _LATE, rng.random() < _SAME
        among = self.job_ids if late else self.job_ids[-_RECENT:]
        drawn = rng.choice(among)
        with self._lock:
            if same and self._last:
                return self._last
            self._last = drawn
        return drawn


def _operator(number: int) -> Identity:
    return Identity(f"operator-{number}@example.com", via="token", role=Role.ADMIN)


def _cancel(operators: Operators, rng: random.Random, control: Control) -> None:
    control.cancel(operators.job(rng), reason=_WHY)


def _abort(operators: Operators, rng: random.Random, control: Control) -> None:
    control.abort(operators.job(rng), reason=_WHY)


def _complete(operators: Operators, rng: random.Random, control: Control) -> None:
    control.complete(operators.job(rng), reason=_WHY, summary=_SUMMARY, result=-1)


def _reroute(operators: Operators, rng: random.Random, control: Control) -> None:
    control.reroute(operators.job(rng), rng.choice(operators.cluster.fleet.queues), reason=_WHY)


def _replay(operators: Operators, rng: random.Random, control: Control) -> None:
    cluster = operators.cluster
    with cluster.engine.connect() as connection:
        letters: Sequence[uuid.UUID] = connection.scalars(text(_OPEN_LETTERS)).all()
    if not letters:
        raise NotFound("no dead letter is open")
    replay(cluster.engine, rng.choice(letters), identity=_operator(0), reason=_WHY)


def _purge(operators: Operators, rng: random.Random, control: Control) -> None:
    control.purge_queue(rng.choice(operators.cluster.fleet.queues), reason=_WHY)


_ACTS: Final[Mapping[str, Callable[[Operators, random.Random, Control], None]]] = {
    "cancel": _cancel,
    "abort": _abort,
    "complete": _complete,
    "reroute": _reroute,
    "replay": _replay,
    "purge": _purge,
}
# Each as often as it stands there; a purge meets all that waits.
_VERBS: Final = (
    *("cancel", "abort", "reroute") * 9,
    *("complete", "replay") * 6,
    "purge",
)


@contextmanager
def operating(operators: Operators) -> Iterator[None]:
    """Let all operators act while the context is open; raise what went wrong with one of them."""
    stop, errors = threading.Event(), list[Exception]()

    def act(number: int) -> None:
        try:
            operators.act(number, stop)
        except Exception as error:  # noqa: BLE001 - raised below, in the storm's own thread
            errors.append(error)

    threads = [
        threading.Thread(target=act, args=(number,), name=f"operator-{number}")
        for number in range(_OPERATORS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
