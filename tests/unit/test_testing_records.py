"""The record scripts in memory: what they run on, and whose time it is."""

from __future__ import annotations

import gc
import inspect
import re
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any

import pytest

from taskyard.jobs.attempt_outcomes import Decision
from taskyard.jobs.states import State
from taskyard.records import Admission, Admitted, Records, Run, UnadmittedJob
from taskyard.settings import Settings
from taskyard.store import read_lua
from taskyard.testing import YardClock
from taskyard.testing.records import MemoryRecords

START = datetime(2030, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
MS = timedelta(milliseconds=1)
# Every byte, and sequences that no UTF-8 decoder takes.
ODD_BYTES = bytes(range(256)) + b"\r\n\xff\xfe\x00\xc3\x28"
# Commands that give, take or carry a lifetime; `server.lua` keeps lifetimes itself.
OF_LIFETIMES = {
    "COPY", "DEL", "EXPIRE", "EXPIREAT", "EXPIRETIME", "GETDEL", "GETEX", "GETSET", "MSET",
    "PERSIST", "PEXPIRE", "PEXPIREAT", "PEXPIRETIME", "PSETEX", "PTTL", "RENAME", "RENAMENX",
    "RESTORE", "SET", "SETEX", "SETNX", "TTL", "UNLINK",
}  # fmt: skip


@pytest.fixture
def clock() -> YardClock:
    return YardClock(START)


@pytest.fixture
def records(clock: YardClock) -> MemoryRecords:
    return MemoryRecords(clock, Settings())


def admission(job_id: str) -> Admission:
    return Admission(job_id, "t", "exec", 3, 60, None, "")


def begun(records: Records, job_id: str, holder: str = "h") -> Run:
    answer = records.attempts.begin(
        job_id, None, holder=holder, worker="w", job_type="t", queue="exec"
    )
    assert isinstance(answer, Run)
    return answer


def finished(records: Records, job_id: str, run: Run, decision: Decision, **facts: Any) -> Any:
    place = {"epoch": run.epoch, "generation": run.generation, "seq": run.seq, "token": run.token}
    return records.attempts.finish(job_id, decision, **place, **facts)


def test_no_call_of_the_records_is_written_a_second_time() -> None:
    public = {name for name, _ in inspect.getmembers(Records, callable) if name[0] != "_"}
    assert set(vars(MemoryRecords)) & public == {"now_us"}, "the scripts are the semantics"


def test_the_commands_of_lifetimes_that_scripts_use_are_those_that_follow_the_clock() -> None:
    scripts = resources.files("taskyard.records").joinpath("scripts")
    source = "".join(file.read_text("utf-8") for file in scripts.iterdir())
    used = set(re.findall(r"redis\.p?call\('(\w+)'", source))
    own = read_lua("taskyard.testing", "server")
    known = set(re.findall(r"function own\.(\w+)", own))
    assert used & OF_LIFETIMES <= known, "give server.lua the others"
    assert known - used == set(), "server.lua has commands that no script uses any more"


def test_a_result_that_is_no_text_comes_back_byte_for_byte(records: MemoryRecords) -> None:
    run = begun(records, "job")
    finished(records, "job", run, Decision.COMPLETED, result=ODD_BYTES)
    assert records.result("job") == ODD_BYTES


def test_times_keep_every_microsecond(records: MemoryRecords, clock: YardClock) -> None:
    now_us = clock.now_us()
    run = begun(records, "job")
    assert (run.epoch, run.token, records.now_us()) == (now_us, now_us, now_us)
    clock.advance(timedelta(microseconds=1))
    facts = {"delay_s": 0.000001, "code": "c", "message": "é / \u2028 \U0001f600 \x7f"}
    answer = finished(records, "job", run, Decision.RETRYING, **facts)
    assert (answer.decided_us, answer.due_us) == (now_us + 1, now_us + 2)
    [line] = records.read("job").history
    assert (line.started_us, line.ended_us, line.error) == (now_us, now_us + 1, facts["message"])


def test_what_ends_by_itself_ends_in_the_clocks_time(
    records: MemoryRecords, clock: YardClock
) -> None:
    ttl_s, window_s = records.settings.result_ttl_s, records.settings.dedupe_window_s
    records.record_publications([UnadmittedJob("failed", "t", "exec")], published=False)
    finished(records, "job", begun(records, "job"), Decision.COMPLETED, result=b"{}")
    assert [records.attempts.deliver("unknown") for _ in range(2)] == [1, 2]

    clock.advance(timedelta(seconds=ttl_s) - MS)
    assert records.result("job") == b"{}"
    clock.advance(MS)
    assert records.result("job") is None
    clock.advance(timedelta(seconds=window_s - ttl_s) - MS)
    assert [records.read(name).state for name in ("job", "failed")] == ["completed", "accepted"]
    clock.advance(MS)
    assert [records.read(name).state for name in ("job", "failed")] == [State.NONE, State.NONE]
    assert records.attempts.deliver("unknown") == 1


def test_what_was_to_end_and_lives_again_does_not(records: MemoryRecords, clock: YardClock) -> None:
    records.record_publications([UnadmittedJob("came", "t", "exec")], published=False)
    begun(records, "came")
    run = begun(records, "job")
    finished(records, "job", run, Decision.COMPLETED, result=b"{}")
    clock.advance(timedelta(seconds=60))
    assert records.admit_many([admission("job")])[0].created
    clock.advance(timedelta(days=400))
    assert [records.read(name).state for name in ("came", "job")] == ["running", "accepted"]


def test_a_yards_time_is_not_the_machines() -> None:
    long_ago = MemoryRecords(YardClock(datetime(1970, 1, 1, tzinfo=UTC)), Settings())
    run = begun(long_ago, "job")
    # The token only has to grow, so it begins at 1 where the clock begins at 0.
    assert (run.epoch, run.token) == (0, 1)
    finished(long_ago, "job", run, Decision.COMPLETED, result=b"{}")
    assert long_ago.result("job") == b"{}"


def test_calls_of_many_jobs_are_answered_too(records: MemoryRecords) -> None:
    names = [f"job-{number}" for number in range(120)]
    ahead = records.admit_ahead(admission(name) for name in names)
    answers = [answer for group in ahead for answer in group]
    assert [answer.created for answer in answers] == [True] * len(names)
    assert records.states(names[:2]) == [(State.ACCEPTED, "t")] * 2
    waiting: Iterator[Admission] = iter([admission("job-0"), admission("other")])
    each = records.admit_each(lambda: next(waiting, None), 3)
    [known, new] = next(each)
    each.close()
    assert isinstance(known, Admitted)
    assert isinstance(new, Admitted)
    assert (known.created, new.created) == (False, True)
    assert records.confirm_many([("job-1", answers[1].epoch), ("other", new.epoch)]) == [None, None]
    assert [end.record.fields["published"] for end in records.ends(["job-1", "other"])] == [
        "1",
        "1",
    ]


def test_a_script_that_the_server_has_forgotten_is_sent_again(records: MemoryRecords) -> None:
    begun(records, "job")
    records.client.script_flush()
    assert isinstance(begun(records, "job"), Run)


def test_no_replica_is_waited_for(clock: YardClock) -> None:
    records = MemoryRecords(clock, Settings(replicas=2))
    assert records.admit_many([admission("job")])[0].created


def test_records_of_one_clock_do_not_meet_and_do_not_stay(clock: YardClock) -> None:
    one, other = (MemoryRecords(clock, Settings()) for _ in range(2))
    begun(one, "job")
    assert other.read("job").state is State.NONE
    clock.advance(MS)
    assert one.now_us() == other.now_us() == begun(other, "job").epoch
    storage = weakref.ref(one.storage)
    del one
    gc.collect()
    assert storage() is None, "a clock that is shared would keep every yard's server"
