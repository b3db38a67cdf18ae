"""Admission under kill switches: which jobs get a record, and what a refusal leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as search
from hypothesis import strategies as st

from servers import Servers
from support.kill_switches import REASON, lift, turn_on
from support.yard import fresh_settings
from taskyard.clock import from_us, us_of
from taskyard.errors import KillSwitchOn
from taskyard.records import OWN_ID, Admission, Admitted, Publication, Records
from taskyard.store import WrongKeyType
from taskyard.switches import Mode, SwitchField, SwitchState
from taskyard.testing.clock import YardClock
from taskyard.testing.records import MemoryRecords

OWNERS = {"bill": "billing", "refund": "billing", "plan": ""}
FIELDS = [
    SwitchField.kill(on)
    for on in ("all", "queue:exec", "queue:ops", "type:bill", "type:plan", "domain:billing")
]
PAUSE = SwitchField.pause("exec")


@pytest.fixture(params=["server", "memory"])
def records(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Records]:
    settings = fresh_settings(servers.valkey_url())
    if request.param == "memory":
        yield MemoryRecords(YardClock(), settings, domain_of=lambda name: OWNERS[name])
        return
    with redis.Redis.from_url(servers.valkey_url()) as client:
        yield Records(client, settings, domain_of=lambda name: OWNERS[name])
        client.delete(*client.scan_iter(f"{settings.namespace}:*"), "list")


def job(
    job_id: str = "j",
    job_type: str = "plan",
    queue: str = "exec",
    call: str = "c",
    delay_s: float = 0,
) -> Admission:
    there = Publication("list", "head ", " tail", "delayed", "messages", delay_s)
    return Admission(job_id, job_type, queue, 3, 0, there, call)


def turn(records: Records, field: SwitchField, mode: Mode = Mode.REFUSE, until_us: int = 0) -> None:
    now_us = records.now_us()
    state = SwitchState(mode, now_us, now_us, until_us, reason=REASON)
    records.client.hset(records.keys.switches, str(field), state.encode())


def refusal(records: Records, admission: Admission) -> KillSwitchOn:
    (answer,) = records.admit_many([admission])
    assert isinstance(answer, KillSwitchOn), answer
    return answer


@pytest.mark.parametrize(
    ("on", "job_type", "queue", "refused"),
    [
        ("all", "plan", "exec", True),
        ("all", "plan", "ops", False),
        ("queue:exec", "plan", "exec", True),
        ("queue:exec", "plan", "ops", False),
        ("queue:ops", "plan", "ops", True),
        ("type:bill", "bill", "exec", True),
        ("type:bill", "refund", "exec", False),
        ("type:bill", "bill", "ops", True),
        ("domain:billing", "refund", "exec", True),
        ("domain:billing", "plan", "exec", False),
    ],
)
@pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.HOLD])
def test_a_kill_switch_refuses_the_new_jobs_of_its_scope(
    records: Records, mode: Mode, on: str, job_type: str, queue: str, refused: bool
) -> None:
    turn(records, SwitchField.kill(on), mode)
    (answer,) = records.admit_many([job("j", job_type, queue)])
    assert isinstance(answer, KillSwitchOn if refused else Admitted)


def test_a_pause_and_a_switch_that_is_off_or_over_refuse_nothing(records: Records) -> None:
    turn(records, PAUSE, Mode.HOLD)
    turn(records, SwitchField.kill("all"), Mode.OFF)
    turn(records, SwitchField.kill("queue:exec"), until_us=records.now_us())
    (answer,) = records.admit_many([job()])
    assert isinstance(answer, Admitted)


def test_a_refusal_says_which_switch_since_when_until_when_and_why(records: Records) -> None:
    now_us = records.now_us()
    field = SwitchField.kill("domain:billing")
    state = SwitchState(Mode.HOLD, now_us, now_us, now_us + us_of(90), reason=REASON)
    records.client.hset(records.keys.switches, str(field), state.encode())
    error = refusal(records, job(job_type="refund"))
    assert (error.field, error.reason) == ("kill domain:billing", REASON)
    assert (error.since, error.until) == (from_us(now_us), from_us(state.until_us))
    assert 80 < error.retry_after <= 90
    turn(records, field)
    error = refusal(records, job(job_type="refund"))
    assert (error.until, error.retry_after) == (None, KillSwitchOn.AGAIN_S)


def test_the_last_microsecond_of_a_switch_is_a_second_to_wait(records: Records) -> None:
    if not isinstance(records, MemoryRecords):
        pytest.skip("only a clock that stands still shows a microsecond")
    turn(records, SwitchField.kill("all"), until_us=records.now_us() + 1)
    assert refusal(records, job()).retry_after == 1


def test_the_widest_of_several_switches_is_named(records: Records) -> None:
    for field in reversed(FIELDS):
        turn(records, field)
    assert refusal(records, job(job_type="bill")).field == "kill all"
    assert refusal(records, job(job_type="bill", queue="ops")).field == "kill queue:ops"


def test_a_refused_job_leaves_nothing_in_redis(records: Records) -> None:
    turn(records, SwitchField.kill("all"))
    before = set(records.client.keys("*"))
    refusal(records, job())
    refusal(records, job(delay_s=60))
    assert set(records.client.keys("*")) == before


def test_a_job_that_exists_is_found_whatever_was_turned_on_since(records: Records) -> None:
    (made,) = records.admit_many([job()])
    assert isinstance(made, Admitted)
    turn(records, SwitchField.kill("all"), Mode.HOLD)
    again, repeated, of_nobody = records.admit_many([job(call="other"), job(), job("new")])
    assert isinstance(again, Admitted)
    assert (again.created, again.epoch) == (False, made.epoch)
    # The reply to the first call was lost: the repeat is the same call.
    assert repeated == made
    assert isinstance(of_nobody, KillSwitchOn)
    assert records.client.llen("list") == 1


def test_an_own_id_that_is_repeated_after_a_lost_reply_answers_as_before(records: Records) -> None:
    (made,) = records.admit_many([job(call=OWN_ID)])
    turn(records, SwitchField.kill("all"))
    assert records.admit_many([job(call=OWN_ID)]) == [made]


def test_another_life_of_an_ended_job_is_new_work(records: Records) -> None:
    records.admit_many([job()])
    key = records.keys.record("j")
    records.client.hset(key, "state", "cancelled")
    turn(records, SwitchField.kill("all"))
    refusal(records, job(call="another"))
    assert records.client.hget(key, "state") == b"cancelled"


def test_a_job_that_is_published_already_gets_its_record(records: Records) -> None:
    turn(records, SwitchField.kill("all"), Mode.HOLD)
    admitted = records.admit(
        "j", job_type="plan", queue="exec", priority=0, unique_for_s=0, refusable=False
    )
    assert admitted.created


def test_a_call_for_one_job_raises_its_refusal(records: Records) -> None:
    turn(records, SwitchField.kill("all"))
    with pytest.raises(KillSwitchOn, match="kill switch on all is on since"):
        records.admit("j", job_type="plan", queue="exec", priority=0, unique_for_s=0)


UNREADABLE = ["", "junk", "hold", "drain 0 1 2 {}", b"\xff", "x" * 100_000]


@pytest.mark.parametrize("value", UNREADABLE)
def test_a_kill_switch_that_cannot_be_read_counts_as_on(
    records: Records, value: str | bytes
) -> None:
    records.client.hset(records.keys.switches, "kill queue:exec", value)
    error = refusal(records, job())
    assert str(error) == (
        "the job is not enqueued: what Redis has for the kill switch on queue:exec cannot be read, "
        "so it counts as on. To find the cause, run: taskyard check"
    )
    assert error.retry_after == KillSwitchOn.AGAIN_S
    (spared,) = records.admit_many([job(queue="ops")])
    assert isinstance(spared, Admitted)


@pytest.mark.parametrize("who", ["{broken}", '{"a":' * 3_000 + "1" + "}" * 3_000])
def test_a_kill_switch_is_on_as_its_value_says_whoever_turned_it(
    records: Records, who: str
) -> None:
    records.client.hset(records.keys.switches, "kill queue:exec", f"refuse 0 1 2 {who}")
    error = refusal(records, job())
    assert "the kill switch on queue:exec is on since 1970-01-01 00:00:00 UTC" in str(error)
    assert (error.reason, error.until) == ("", None)
    assert "no reason is stored" in str(error)


def test_a_reason_that_somebody_wrote_into_redis_adds_no_lines_to_a_log(records: Records) -> None:
    now_us = records.now_us()
    state = SwitchState(Mode.HOLD, 1, now_us, reason="a\nERROR b\x1b[2J" + "c" * 5_000)
    records.client.hset(records.keys.switches, "kill all", state.encode())
    reason = refusal(records, job()).reason
    assert reason.startswith("a ERROR b\\x1b[2Jccc")
    assert len(reason) == 2_000


def test_a_key_of_another_type_is_named_and_nothing_is_written(servers: Servers) -> None:
    settings = fresh_settings(servers.valkey_url())
    with redis.Redis.from_url(servers.valkey_url()) as client:
        records = Records(client, settings)
        client.set(records.keys.switches, "no hash")
        with pytest.raises(WrongKeyType) as caught:
            records.admit_many([job()])
        assert caught.value.key == records.keys.switches
        assert records.client.keys(f"{settings.namespace}:*") == [records.keys.switches.encode()]
        client.delete(records.keys.switches)


# --- any switches, any jobs ----------------------------------------------------------------------


@dataclass(frozen=True)
class Turned:
    """A switch as the model has it; `ends` is whether its end has come."""

    mode: Mode
    ends: bool


KINDS = st.tuples(st.sampled_from(sorted(OWNERS)), st.sampled_from(["exec", "ops"]))
JOBS = st.lists(st.tuples(st.integers(0, 9), KINDS), min_size=1, max_size=70)
SWITCHES = st.dictionaries(
    st.sampled_from([*FIELDS, PAUSE]), st.builds(Turned, st.sampled_from(Mode), st.booleans())
)


def met(job_type: str, queue: str) -> set[str]:
    """The kill switches that refuse such a job, as the design has it."""
    named = {f"kill queue:{queue}", f"kill type:{job_type}"}
    named |= {f"kill domain:{OWNERS[job_type]}"} if OWNERS[job_type] else set()
    return named | ({"kill all"} if queue != "ops" else set())


@given(calls=st.lists(st.tuples(SWITCHES, JOBS), min_size=1, max_size=4))
@search(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_whatever_is_on_new_jobs_are_refused_and_known_ones_found(
    records: Records,
    calls: list[tuple[dict[SwitchField, Turned], list[tuple[int, tuple[str, str]]]]],
) -> None:
    """Each job of a call has its own answer; a refused one changes nothing."""
    records.client.delete(*records.client.scan_iter(f"{records.settings.namespace}:*"), "list")
    known: dict[str, tuple[str, str]] = {}
    for number, (switches, jobs) in enumerate(calls):
        records.client.delete(records.keys.switches)
        for field, turned in switches.items():
            turn(records, field, turned.mode, records.now_us() if turned.ends else 0)
        on = {str(field) for field, of in switches.items() if of.mode != Mode.OFF and not of.ends}
        asked = [
            job(f"j{name}", *kind, call=f"{number}.{at}") for at, (name, kind) in enumerate(jobs)
        ]
        for admission, answer in zip(asked, records.admit_many(asked), strict=True):
            kind = admission.job_type, admission.queue
            if admission.job_id in known:
                assert isinstance(answer, Admitted)
                assert not answer.created
            elif fields := met(*kind) & on:
                assert isinstance(answer, KillSwitchOn)
                assert answer.field in fields
            else:
                assert isinstance(answer, Admitted)
                assert answer.created
                known[admission.job_id] = kind
        assert records.client.llen("list") == len(known)
        assert records.client.xlen(records.keys.lifecycle) == len(known)
        for name in range(10):
            read = records.read(f"j{name}").fields
            assert (read.get("type"), read.get("queue")) == known.get(f"j{name}", (None, None))


def test_a_switch_that_is_lifted_lets_the_same_job_in(servers: Servers) -> None:
    settings = fresh_settings(servers.valkey_url())
    with redis.Redis.from_url(servers.valkey_url()) as client:
        records, field = Records(client, settings), SwitchField.kill("type:plan")
        since = turn_on(client, settings.namespace, field).since_us
        assert refusal(records, job()).since == datetime.fromtimestamp(since / 1e6, UTC)
        lift(client, settings.namespace, field)
        (answer,) = records.admit_many([job()])
        assert isinstance(answer, Admitted)
        client.delete(*client.scan_iter(f"{settings.namespace}:*"), "list")
