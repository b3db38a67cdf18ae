"""The scripts answer in memory as they do on a server, whatever the order of the calls.

Both are driven with the same calls. Times differ between the two, so what is compared is what a
caller can tell apart: answers, fields, counters, history and events. TASKYARD_MODEL_EXAMPLES
searches longer than the default.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as search
from hypothesis import strategies as st

from servers import Servers
from support.yard import fresh_settings
from taskyard.errors import KillSwitchOn, Refused
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.records import Records, Run, UnadmittedJob, VerbApplied, VerbTarget
from taskyard.switches import Mode, SwitchState
from taskyard.testing.clock import YardClock
from taskyard.testing.records import MemoryRecords
from taskyard.wire.stamp_header import Stamp

# Given by two different clocks; what follows from them is compared instead.
OF_A_CLOCK = {
    "token",
    "epoch",
    "version",
    "due_us",
    "now_us",
    "decided_us",
    "remaining_us",
    "lease_until_us",
}
COUNTERS = ("generation", "seq", "attempts", "deaths", "deliveries", "begins")
TEXTS = ("type", "queue", "holder", "moved_holder", "nesting", "nested_generation", "nested_seq")
A_LIFE_US = 10**12

INDEX = st.integers(0, 5)
HOLDER = st.sampled_from(["h1", "h2", "h3"])
CALLS = st.one_of(
    st.tuples(st.just("record_publication"), st.booleans()),
    st.tuples(st.just("admit"), st.sampled_from([0, 90_000]), st.sampled_from(["", "c1", "c2"])),
    st.tuples(
        st.just("admit_under"),
        st.sampled_from(["kill all", "kill queue:exec", "kill type:u", "pause queue:exec"]),
        st.sampled_from(Mode),
        st.sampled_from(["", "c1"]),
    ),
    st.tuples(st.just("begin"), INDEX, HOLDER, st.sampled_from(["p1", "p2"])),
    st.tuples(st.just("begin"), INDEX, HOLDER, st.just("p1")),
    st.tuples(st.just("finish"), INDEX, st.sampled_from(Decision)),
    st.tuples(st.just("finish_stopped"), INDEX, st.sampled_from(Decision)),
    st.tuples(st.just("finish_held"), INDEX, HOLDER, st.sampled_from(Decision)),
    st.tuples(st.sampled_from(["release", "lose"]), HOLDER),
    st.tuples(st.just("dead_letter"), INDEX),
    st.tuples(st.just("other_task"), HOLDER),
    st.tuples(st.just("other_task_dies")),
    st.tuples(st.just("replacement"), st.sampled_from([1, 2]), st.sampled_from([0, 1]), HOLDER),
    st.tuples(st.just("replacement_dies"), st.sampled_from([1, 2])),
    st.tuples(st.just("replay"), INDEX, st.sampled_from(["r1", "r2", "r3"])),
    st.tuples(
        st.sampled_from(["cancel", "cancel", "abort", "force"]), st.sampled_from(["v1", "v2"])
    ),
    st.tuples(
        st.just("reroute"), st.sampled_from(["v5", "v6", "v7"]), st.sampled_from(["exec", "plan"])
    ),
    st.tuples(st.just("requeued")),
    st.tuples(st.just("removed"), st.booleans()),
    st.tuples(st.just("cancel_as_seen"), INDEX, st.sampled_from(["v3", "v4"])),
    st.tuples(st.sampled_from(["renew", "progress"]), INDEX),
    st.tuples(st.sampled_from(["deliver", "expire_lease", "confirm"])),
)


@dataclass
class Side:
    """One of the two, with the messages and attempts that it has given so far."""

    records: Records
    job_id: str
    stamps: list[Stamp | None] = field(default_factory=lambda: [None])
    runs: list[Run] = field(default_factory=list)

    def call(self, name: str, *arguments: Any) -> Any:
        """The normalised answer to one call."""
        try:
            return _normal(getattr(self, f"_{name}")(*arguments))
        except Refused as refused:
            return "refused", "".join(c for c in str(refused).split(":")[-1] if not c.isdigit())

    def _stamp(self, index: int) -> Stamp | None:
        return self.stamps[-1 - index % len(self.stamps)]

    def _admit(self, unique_for_s: float, call: str) -> Any:
        answer = self.records.admit(
            self.job_id, job_type="t", queue="exec", priority=3,
            unique_for_s=unique_for_s, call=call,
        )  # fmt: skip
        self.stamps.append(Stamp(answer.epoch, answer.generation, answer.seq))
        return answer

    def _admit_under(self, field: str, mode: Mode, call: str) -> Any:
        """Admit while a switch is on; it is off again before the next call."""
        switches = self.records.keys.switches
        self.records.client.hset(switches, field, SwitchState(mode, 1, 1).encode())
        try:
            return self._admit(0, call)
        except KillSwitchOn as refused:
            return refused.field, refused.retry_after
        finally:
            self.records.client.delete(switches)

    def _record_publication(self, published: bool) -> int:
        job = UnadmittedJob(self.job_id, "t", "exec")
        return self.records.record_publications([job], published=published)

    def _begin(self, index: int, holder: str, process: str) -> Any:
        answer = self.records.attempts.begin(
            self.job_id, self._stamp(index), holder=holder, worker="w", process=process,
            job_type="t", queue="exec",
        )  # fmt: skip
        if isinstance(answer, Run):
            self.runs.append(answer)
            here = (answer.epoch, answer.generation, answer.seq)
            later = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (A_LIFE_US, 0, 0)]
            self.stamps += [
                Stamp(*(a + b for a, b in zip(here, step, strict=True))) for step in later
            ]
            self.stamps += [Stamp(answer.epoch, answer.generation, answer.seq, nesting=1)]
        return answer

    def _replacement(self, nesting: int, retries: int, holder: str) -> Any:
        """A message that Celery has counted as another task in this one's place, unstamped."""
        answer = self.records.attempts.begin(
            self.job_id, Stamp(0, 0, retries, nesting=nesting), holder=holder, worker="w",
            job_type="u", queue="exec", process="p1",
        )  # fmt: skip
        if isinstance(answer, Run):
            self.runs.append(answer)
        return answer

    def _replacement_dies(self, nesting: int) -> Any:
        return self.records.attempts.dead_letter(
            self.job_id, Stamp(0, nesting=nesting), job_type="u", queue="exec",
            cause=b"{}", code="c", category="timeout", message="m",
        )  # fmt: skip

    def _other_task(self, holder: str) -> Any:
        """A message of another task with the same id, from a producer that knows no stamps."""
        answer = self.records.attempts.begin(
            self.job_id, None, holder=holder, worker="w", job_type="u", queue="exec",
        )  # fmt: skip
        if isinstance(answer, Run):
            self.runs.append(answer)
        return answer

    def _other_task_dies(self) -> Any:
        return self.records.attempts.dead_letter(
            self.job_id, None, job_type="u", queue="exec", cause=b"{}", code="c",
            category="timeout", message="m",
        )  # fmt: skip

    def _finish(
        self, index: int, decision: Decision, holder: str | None = None, *, stopped: bool = False
    ) -> Any:
        if not self.runs:
            return None
        run = self.runs[-1 - index % len(self.runs)]
        proof: dict[str, Any] = {"token": run.token} if holder is None else {"holder": holder}
        return self.records.attempts.finish(
            self.job_id, decision, epoch=run.epoch, generation=run.generation, seq=run.seq,
            result=b"{}", delay_s=1, cause=b'{"category": "timeout"}', code="c", category="timeout",
            message="m", stopped=stopped, **proof,
        )  # fmt: skip

    def _finish_stopped(self, index: int, decision: Decision) -> Any:
        return self._finish(index, decision, stopped=True)

    def _cancel(self, request: str) -> Any:
        return self.records.verbs.cancel(VerbTarget(self.job_id), request, "o")

    def _cancel_as_seen(self, index: int, request: str) -> Any:
        """The operator saw the job at the position of one of its messages."""
        stamp = self._stamp(index)
        if stamp is None:
            return None
        target = VerbTarget(self.job_id, stamp.epoch or None, stamp.generation)
        return self.records.verbs.cancel(target, request, "o")

    def _abort(self, request: str) -> Any:
        return self.records.verbs.abort(VerbTarget(self.job_id), request, "o")

    def _force(self, request: str) -> Any:
        return self.records.verbs.force_complete(VerbTarget(self.job_id), request, "o", b"{}")

    def _reroute(self, request: str, to: str) -> Any:
        answer = self.records.verbs.reroute(VerbTarget(self.job_id), request, "o", to)
        if isinstance(answer, VerbApplied):
            self.stamps.append(Stamp(answer.epoch, answer.generation))
        return answer

    def _removed(self, other: bool) -> None:
        """A purge has taken the message out of its queue."""
        epoch = self.records.read(self.job_id).epoch
        self.records.note_gone_many([(self.job_id, epoch + other)])

    def _requeued(self) -> bool:
        record = self.records.read(self.job_id)
        return self.records.requeued(self.job_id, record.epoch, record.generation)

    def _finish_held(self, index: int, holder: str, decision: Decision) -> Any:
        return self._finish(index, decision, holder)

    def _release(self, holder: str) -> Any:
        return self.records.attempts.release(self.job_id, holder)

    def _lose(self, holder: str) -> Any:
        return self.records.attempts.lose(self.job_id, holder, "evidence")

    def _dead_letter(self, index: int) -> Any:
        return self.records.attempts.dead_letter(
            self.job_id, self._stamp(index), job_type="t", queue="exec",
            cause=b'{"category": "expired"}', code="expired", category="expired", message="late",
        )  # fmt: skip

    def _replay(self, index: int, request: str) -> Any:
        stamp = self._stamp(index)
        if stamp is None:
            return None
        return self.records.replay(
            job_id=self.job_id, epoch=stamp.epoch, generation=stamp.generation, request_id=request,
            job_type="t", queue="plan", priority=2,
        )  # fmt: skip

    def _renew(self, index: int) -> Any:
        if not self.runs:
            return None
        return self.records.attempts.renew(
            self.job_id, self.runs[-1 - index % len(self.runs)].token
        )

    def _progress(self, index: int) -> Any:
        if not self.runs:
            return None
        token = self.runs[-1 - index % len(self.runs)].token
        return self.records.attempts.progress(self.job_id, token, 0.5, "half")

    def _deliver(self) -> Any:
        return self.records.attempts.deliver(self.job_id)

    def _confirm(self) -> Any:
        self.records.confirm(self.job_id, self.records.read(self.job_id).epoch)

    def _expire_lease(self) -> None:
        if isinstance(self.records, MemoryRecords):
            self.records.storage.clock.advance(timedelta(seconds=self.records.settings.lease_s + 1))
            return
        key = self.records.keys.record(self.job_id)
        if self.records.client.hexists(key, "lease_until"):
            self.records.client.hset(key, "lease_until", 1)

    # -- what is there afterwards --------------------------------------------------------------

    def sight(self) -> dict[str, Any]:
        """All that a reader can see of the job."""
        record = self.records.read(self.job_id)
        counters = {name: record.number(name) for name in COUNTERS}
        history = [(note.attempt, note.outcome, note.code, note.error) for note in record.history]
        texts = {name: record.fields.get(name) or "" for name in TEXTS}
        return {
            "state": record.state,
            "fields": sorted(record.fields),
            "cause": {**record.cause},
            "history": history,
            "events": self._events(),
            "result": self.records.result(self.job_id),
            "progress": record.progress,
            "decision": record.fields.get("decision"),
            "ends": self._ends(),
            "published": record.fields.get("published") == "1",
            **counters,
            **texts,
        }

    def _ends(self) -> list[bool]:
        """Which of the job's keys have a lifetime."""
        record = self.records.keys.record(self.job_id)
        keys = [record, f"{record}:deliveries", self.records.keys.result(self.job_id)]
        if isinstance(self.records, MemoryRecords):
            return [self.records.storage.ends_by_itself(key) for key in keys]
        return [self.records.client.pttl(key) > 0 for key in keys]

    def _events(self) -> list[tuple[str, str]]:
        stream = self.records.client.xrange(self.records.keys.lifecycle)
        found = [{k.decode(): v.decode() for k, v in entry.items()} for _, entry in stream]
        return [(event["event"], event["state"]) for event in found if event["job"] == self.job_id]


def _normal(answer: Any) -> Any:
    if not hasattr(answer, "__dataclass_fields__"):
        return answer
    facts = {name: value for name, value in asdict(answer).items() if name not in OF_A_CLOCK}
    return type(answer).__name__, facts


LONG_SEARCH = int(os.environ.get("TASKYARD_MODEL_EXAMPLES", "400"))


@pytest.fixture(scope="module")
def scripts(servers: Servers) -> Iterator[Records]:
    settings = fresh_settings(servers.valkey_url())
    client = redis.Redis.from_url(settings.need_redis_url())
    yield Records(client, settings)
    client.close()


@pytest.mark.parametrize("examples", [80, pytest.param(LONG_SEARCH, marks=pytest.mark.slow)])
def test_every_call_has_the_same_answer_and_the_same_effect(
    scripts: Records, examples: int
) -> None:
    @search(max_examples=examples, suppress_health_check=list(HealthCheck), deadline=None)
    @given(calls=st.lists(CALLS, min_size=5, max_size=40))
    def compare(calls: list[tuple[Any, ...]]) -> None:
        job_id = uuid.uuid4().hex
        memory = MemoryRecords(YardClock(), scripts.settings)
        redis_side, memory_side = Side(scripts, job_id), Side(memory, job_id)
        for number, (name, *arguments) in enumerate(calls):
            text = f"call {number}, {name} {arguments}"
            assert memory_side.call(name, *arguments) == redis_side.call(name, *arguments), text
            assert memory_side.sight() == redis_side.sight(), text
        scripts.client.delete(scripts.keys.lifecycle, *scripts.client.keys(f"*{job_id}*"))

    compare()
