"""Switches flipped at random under a storm, and an observer who looks at both stores meanwhile."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Final

from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from chaos.cluster import Cluster
from chaos.switch_audit import IN_FORCE_S, Came, Look, behind_s, differing, wrong_events
from taskyard.access import Identity, Role
from taskyard.control import Control
from taskyard.errors import Refused, ServerRefused, ServerUnreachable
from taskyard.jobs.states import Event
from taskyard.ops.embedded.waiting import until
from taskyard.store import connect
from taskyard.switches import RedisSwitches, SwitchField, SwitchState
from taskyard.switches.postgres_switches import read_rows

__all__ = ["Flips", "Judged", "flipping"]

_WHY: Final = "The tenant's database is under maintenance in this storm"
_BY: Final = Identity("operator-switches@example.com", via="token", role=Role.ADMIN)
_LOOK_S: Final = 0.02
_TRUTH_S: Final = 0.1
_ON_S: Final = (0.3, 2.0)
_OFF_S: Final = (0.5, 2.5)
_AGAIN_S: Final = 0.25
# A cluster whose servers all run takes an operator's request well within this.
_TAKEN_S: Final = 60.0
_DOWN: Final = (ServerUnreachable, ServerRefused, SQLAlchemyError, RedisError)
# No job is in that queue: it stays paused for the whole storm, and must be paused after it.
_LASTING: Final = "locator"
_ENDS_ITSELF: Final = 0.2
_TWO: Final = 0.2
_EVENTS: Final = """
    SELECT job_id, event, round(extract(epoch FROM at) * 1000000)::bigint,
           coalesce(detail->>'queue', ''), coalesce(detail->>'type', '')
    FROM job_events WHERE event IN ('admit', 'begin')
"""


@dataclass(frozen=True, slots=True)
class Judged:
    """How many flips there were, what was wrong, and the longest time without a switch in Redis."""

    flips: int = 0
    wrong: list[str] = field(default_factory=list)
    behind_s: float | None = None


@dataclass
class Flips:
    """The switches of one storm, drawn from `seed`; `asked` counts what became of each request."""

    cluster: Cluster
    seed: str
    asked: Counter[str] = field(default_factory=Counter)
    looks: list[Look] = field(default_factory=list)
    truths: list[tuple[int, Mapping[SwitchField, SwitchState]]] = field(default_factory=list)
    _wanted: dict[SwitchField, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Connect; `opened` by this object, closed by `flipping`."""
        settings = self.cluster.settings
        self.client = connect(settings.need_redis_url(), retries=1, timeout_s=1)
        self._switches = RedisSwitches(self.client, settings.namespace)
        self._control = Control(
            self.cluster.engine, self.cluster.records, _BY, wait_s=0, switches=self._switches
        )

    # -- the operator --------------------------------------------------------------------------

    def act(self, stop: threading.Event) -> None:
        """Turn one switch or two on for a moment, again and again until `stop` is set."""
        rng = random.Random(f"{self.seed} switches")  # noqa: S311 - repeatable
        lasting = partial(self._control.pause_queue, _LASTING)
        self._take("pause queue:locator", lasting, SwitchField.pause(_LASTING), on=True)
        choices = _choices(self.cluster.fleet.queues, self.cluster.fleet.job_type)
        while not stop.wait(rng.uniform(*_OFF_S)):
            drawn = [rng.choice(choices) for _ in range(1 + (rng.random() < _TWO))]
            for choice in drawn:
                self._turn_on(rng, choice)
            stop.wait(rng.uniform(*_ON_S))
            for choice in drawn:
                lift = partial(_lift, self._control, choice.field)
                self._take(f"{choice.field} off", lift, choice.field, on=False)

    def _turn_on(self, rng: random.Random, choice: _Choice) -> None:
        options: dict[str, Any] = {}
        if rng.random() < _ENDS_ITSELF:
            options["lasts"] = timedelta(seconds=rng.uniform(*_ON_S))
        name = f"{choice.field} {'hold' if choice.hold else 'refuse'}"
        try:
            _turn(self._control, choice, options)
        except _DOWN:
            self.asked[f"{name}: no server"] += 1
        else:
            self.asked[f"{name}: done"] += 1

    def _take(
        self, name: str, request: Callable[..., object], switch: SwitchField, *, on: bool
    ) -> None:
        """Ask until the request is taken; refused means that the switch is so already."""

        def taken() -> bool:
            try:
                request(reason=_WHY)
            except Refused:
                self.asked[f"{name}: so already"] += 1
            except _DOWN:
                self.asked[f"{name}: no server"] += 1
                return False
            else:
                self.asked[f"{name}: done"] += 1
            self._wanted[switch] = on
            return True

        if not until(taken, within_s=_TAKEN_S, every_s=_AGAIN_S):
            raise RuntimeError(f"{name} was not taken within {_TAKEN_S:g} s")

    # -- the observer --------------------------------------------------------------------------

    def look(self, stop: threading.Event) -> None:
        """Look at Redis until `stop` is set; while it does not answer there is nothing to see."""
        while not stop.wait(_LOOK_S):
            try:
                read = self._switches.read()
            except RedisError:
                continue
            self.looks.append(Look(read.now_us, read.states))

    def look_at_truth(self, stop: threading.Event) -> None:
        """Look at Postgres until `stop` is set."""
        while not stop.wait(_TRUTH_S):
            try:
                rows = self._rows()
            except _DOWN:
                continue
            self.truths.append((_now_us(), rows))

    def _rows(self) -> dict[SwitchField, SwitchState]:
        with self.cluster.engine.connect() as connection:
            return {name: row.state for name, row in read_rows(connection).items()}

    # -- after the storm -----------------------------------------------------------------------

    def await_agreement(self) -> None:
        """Wait until both stores agree, as long as that may take."""
        until(lambda: not self._differing(), within_s=IN_FORCE_S, every_s=0.1)

    def _differing(self) -> list[str]:
        try:
            read, rows = self._switches.read(), self._rows()
        except _DOWN as error:
            return [f"a server does not answer: {error}"]
        return list(differing(self._wanted, rows, read.states, read.now_us))

    def judge(self, faults_us: list[tuple[int, int]]) -> Judged:
        """What the ledger, both stores and the observer say together."""
        with self.cluster.engine.connect() as connection:
            rows = connection.execute(text(_EVENTS))
            events = [Came(row[0], Event(row[1]), *row[2:]) for row in rows]
        behind = behind_s(self.looks, self.truths, faults_us)
        wrong = [*self._differing(), *wrong_events(events, self.looks)]
        if behind > IN_FORCE_S:
            wrong.append(f"Redis lacked a switch for {behind:.1f} s, at most {IN_FORCE_S:g} s")
        flips = sum(count for what, count in self.asked.items() if what.endswith(": done"))
        return Judged(flips, wrong, round(behind, 2))


@dataclass(frozen=True, slots=True)
class _Choice:
    field: SwitchField
    hold: bool


def _choices(queues: Sequence[str], job_type: str) -> list[_Choice]:
    """While a kill switch is on nothing comes, so a pause has more to hold."""
    first, second = queues
    kill = SwitchField.kill(f"queue:{first}")
    return [
        *[_Choice(SwitchField.pause(first), hold=True)] * 4,
        _Choice(SwitchField.pause(second), hold=True),
        _Choice(kill, hold=True),
        _Choice(kill, hold=False),
        _Choice(SwitchField.kill("all"), hold=True),
        _Choice(SwitchField.kill("all"), hold=False),
        _Choice(SwitchField.kill(f"type:{job_type}"), hold=True),
    ]


def _turn(control: Control, choice: _Choice, options: dict[str, Any]) -> None:
    if choice.field.kind == "pause":
        control.pause_queue(choice.field.name, reason=_WHY, force=True, **options)
    else:
        control.kill(choice.field.on, reason=_WHY, hold=choice.hold, force=True, **options)


def _lift(control: Control, switch: SwitchField, reason: str) -> None:
    if switch.kind == "pause":
        control.resume_queue(switch.name, reason=reason)
    else:
        control.lift(switch.on, reason=reason)


def _now_us() -> int:
    return time.time_ns() // 1000


@contextmanager
def flipping(flips: Flips) -> Iterator[None]:
    """Let the operator flip and the observer look while the context is open.

    The operator lifts what is on before the observer stops. Raises what went wrong with either.
    """
    stop, blind, errors = threading.Event(), threading.Event(), list[Exception]()
    threads = [
        _thread("switches", flips.act, stop, errors),
        _thread("observer", flips.look, blind, errors),
        _thread("observer-of-postgres", flips.look_at_truth, blind, errors),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        threads[0].join()
        flips.await_agreement()
        blind.set()
        for thread in threads[1:]:
            thread.join()
    if errors:
        raise errors[0]


def _thread(
    name: str,
    act: Callable[[threading.Event], None],
    stop: threading.Event,
    errors: list[Exception],
) -> threading.Thread:
    def run() -> None:
        try:
            act(stop)
        except Exception as error:  # noqa: BLE001 - raised in the storm's own thread
            errors.append(error)

    return threading.Thread(target=run, name=name)
