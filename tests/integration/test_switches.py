"""Pause and kill switch: permitted, reasoned, audited, in both stores, and kept there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from redis.exceptions import OutOfMemoryError as OutOfMemory
from sqlalchemy import Engine, text

from servers import RedisServer, Servers
from support.databases import owner_url
from support.switched import ADMIN, ALL, EXEC, OPS, WHY, SwitchHarness
from taskyard.access import Action, Identity, Role
from taskyard.clock import from_us, us_of
from taskyard.control import Control
from taskyard.control.break_glass import turn_by_trust
from taskyard.control.switch_request import SwitchRequest
from taskyard.control.turn_switch import turn_switch
from taskyard.database import opened as opened_database
from taskyard.errors import InvalidReason, InvalidSwitch, NotPermitted, Refused, ServerUnreachable
from taskyard.records.live_workers import Fleet, Member
from taskyard.store import connect
from taskyard.switches import Kind, Mode, RedisSwitches, SwitchField, SwitchState, next_version
from taskyard.switches.redis_switches import UNREADABLE
from taskyard.testing import YardClock

# Relay and operators: by the role that they have in production.
AS_RUNTIME = True

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def _no_switches(servers: Servers, database: Engine) -> None:
    url = owner_url(servers, database.url.render_as_string(hide_password=False))
    with opened_database(url) as owner, owner.begin() as connection:
        connection.execute(text("DELETE FROM switches"))


@pytest.fixture
def harness(servers: Servers, database: Engine) -> Iterator[SwitchHarness]:
    made = SwitchHarness(servers.valkey_url(), database)
    yield made
    made.client.close()


@pytest.fixture
def control(harness: SwitchHarness) -> Control:
    return harness.control()


def without_redis(harness: SwitchHarness) -> Control:
    """The same operator while Redis does not answer."""
    down = connect(NOWHERE, retries=0, timeout_s=1)
    away = RedisSwitches(down, harness.settings.namespace)
    made = harness.control()
    return Control(harness.database, made._records, ADMIN, switches=away)


def test_a_pause_is_in_both_stores_and_audited(harness: SwitchHarness, control: Control) -> None:
    turned = control.pause_queue("exec", reason=WHY)
    assert (turned.field, turned.outcome, turned.former) == (EXEC, "applied", None)
    assert harness.in_redis() == harness.in_postgres() == {EXEC: turned.state}
    state = turned.state
    assert (state.mode, state.until_us, state.operator) == (Mode.HOLD, 0, ADMIN.subject)
    assert (state.reason, state.request_id) == (WHY, str(turned.request_id))
    requested, applied = harness.audited(turned.request_id)
    assert requested["action_type"] == Action.PAUSE_QUEUE
    assert (requested["target_request_id"], requested["reason"]) == ("pause queue:exec", WHY)
    assert (requested["outcome"], applied["outcome"]) == ("requested", "applied")
    assert requested["detail"]["was"] is None
    assert applied["operator_identity"] == ADMIN.subject


def test_resume_leaves_an_off_that_is_newer(harness: SwitchHarness, control: Control) -> None:
    paused = control.pause_queue("exec", reason=WHY)
    resumed = control.resume_queue("exec", reason=WHY)
    assert resumed.former == paused.state
    assert resumed.state.version > paused.state.version
    assert harness.in_redis() == harness.in_postgres() == {EXEC: resumed.state}
    assert harness.switches.read().in_force() == {}
    assert harness.audited(resumed.request_id)[0]["action_type"] == Action.RESUME_QUEUE
    again = control.pause_queue("exec", reason=WHY)
    assert harness.switches.read().in_force() == {EXEC: again.state}


@pytest.mark.parametrize("on", ["all", "queue:exec", "type:report.make", "domain:billing"])
def test_the_kill_switch_goes_on_and_off(harness: SwitchHarness, on: str) -> None:
    control = harness.control()
    killed = control.kill(on, reason=WHY, force=True)
    assert killed.state.mode is Mode.REFUSE
    assert harness.audited(killed.request_id)[0]["action_type"] == Action.ENGAGE_KILL_SWITCH
    held = control.kill(on, reason="Now also what waits, incident 4711", hold=True, force=True)
    assert (held.state.mode, held.former) == (Mode.HOLD, killed.state)
    assert held.state.since_us == killed.state.since_us
    lifted = control.lift(on, reason=WHY)
    assert lifted.state.mode is Mode.OFF
    assert harness.audited(lifted.request_id)[0]["action_type"] == Action.RELEASE_KILL_SWITCH
    assert harness.switches.read().in_force() == {}


def test_coroutines_turn_switches_too(harness: SwitchHarness, control: Control) -> None:
    async def turn() -> list[str]:
        paused = await control.apause_queue("exec", reason=WHY, lasts=timedelta(hours=1))
        resumed = await control.aresume_queue("exec", reason=WHY)
        killed = await control.akill("all", reason=WHY, hold=True)
        lifted = await control.alift("all", reason=WHY)
        return [turned.outcome for turned in (paused, resumed, killed, lifted)]

    assert asyncio.run(turn()) == ["applied"] * 4
    assert harness.switches.read().in_force() == {}


def test_an_end_is_a_time_or_a_duration_from_now(control: Control, harness: SwitchHarness) -> None:
    lasts = control.pause_queue("exec", reason=WHY, lasts=timedelta(hours=2))
    assert lasts.state.until_us - lasts.state.since_us == us_of(7200)
    until = datetime.now(UTC) + timedelta(days=1)
    killed = control.kill("all", reason=WHY, until=until)
    assert killed.state.in_force(harness.switches.read().now_us)
    assert from_us(killed.state.until_us) == until


@pytest.mark.parametrize(
    ("on", "options", "says"),
    [
        ("everything", {}, "expected all, queue:NAME"),
        ("all", {"lasts": timedelta(0)}, "a switch ends in the future"),
        ("all", {"lasts": timedelta(days=5000)}, "within 3660 days"),
        ("all", {"until": datetime(2020, 1, 1, tzinfo=UTC)}, "got 2020-01-01 .* the clock is at"),
        ("all", {"until": datetime(2999, 1, 1)}, "with its time zone"),  # noqa: DTZ001 - the fault
        (
            "all",
            {"until": datetime(2999, 1, 1, tzinfo=UTC), "lasts": timedelta(1)},
            "an end or a duration, got both",
        ),
        ("type:a\tb", {"force": True}, "no control characters"),
    ],
)
def test_what_cannot_be_is_refused_audited_and_changes_nothing(
    harness: SwitchHarness, on: str, options: dict[str, object], says: str
) -> None:
    with pytest.raises(InvalidSwitch, match=says):
        harness.control().kill(on, reason=WHY, **options)  # type: ignore[arg-type]
    row = harness.last_audited()
    assert row["action_type"] == Action.ENGAGE_KILL_SWITCH
    assert row["outcome"].startswith("refused: ")
    assert (harness.in_redis(), harness.in_postgres()) == ({}, {})


def test_a_reason_is_required(harness: SwitchHarness, control: Control) -> None:
    with pytest.raises(InvalidReason):
        control.kill("all", reason="fix it")
    assert harness.last_audited()["outcome"].startswith("refused: the reason 'fix it'")
    assert harness.in_postgres() == {}


@pytest.mark.parametrize(
    ("on", "says"),
    [
        ("queue:exce", r"no queue 'exce'. Close: exec. .*--force"),
        ("type:tasks.nope", r"no job type 'tasks.nope'. (Close|Known): .*--force"),
        # Another test of this process may have a job type with a domain.
        ("domain:nobodys", r"no domain 'nobodys'. Known: .*--force"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(
    harness: SwitchHarness, on: str, says: str
) -> None:
    with pytest.raises(Refused, match=says):
        harness.control().kill(on, reason=WHY)
    assert harness.last_audited()["outcome"].startswith("refused: this machine knows no")
    assert harness.in_postgres() == {}
    assert harness.control().kill(on, reason=WHY, force=True).outcome == "applied"
    # What is on can be turned off, whoever knows its name.
    assert harness.control().lift(on, reason=WHY).outcome == "applied"


def test_a_queue_that_a_worker_reads_is_known(harness: SwitchHarness, control: Control) -> None:
    name = f"{harness.settings.namespace}.reports"
    Fleet(harness.client, harness.settings.namespace).join(Member("w@host", (name,)), 0)
    assert control.pause_queue("reports", reason=WHY).outcome == "applied"


def test_what_is_off_cannot_be_turned_off(harness: SwitchHarness, control: Control) -> None:
    with pytest.raises(Refused, match="pause queue:exec is off, so it cannot be turned off"):
        control.resume_queue("exec", reason=WHY)
    control.pause_queue("exec", reason=WHY)
    control.resume_queue("exec", reason=WHY)
    with pytest.raises(Refused, match="pause queue:exec is off since 20"):
        control.resume_queue("exec", reason=WHY)


def test_the_kill_switch_is_the_admins_and_a_pause_the_operators(harness: SwitchHarness) -> None:
    ops = harness.control(OPS)
    assert ops.pause_queue("exec", reason=WHY).outcome == "applied"
    with pytest.raises(NotPermitted, match="needs the role admin or a grant by name"):
        ops.kill("all", reason=WHY)
    assert harness.last_audited()["outcome"] == "denied"
    assert ALL not in harness.in_postgres()
    named = replace(OPS, granted=frozenset({Action.ENGAGE_KILL_SWITCH, Action.RELEASE_KILL_SWITCH}))
    assert harness.control(named).kill("all", reason=WHY).outcome == "applied"
    assert harness.control(named).lift("all", reason=WHY).outcome == "applied"
    with pytest.raises(NotPermitted):
        harness.control(Identity("v", via="token:1", role=Role.VIEWER)).pause_queue(
            "exec", reason=WHY
        )


def test_bounds_limit_switches(harness: SwitchHarness) -> None:
    plan = replace(OPS, queues=frozenset({"plan"}))
    assert harness.control(plan).pause_queue("plan", reason=WHY).outcome == "applied"
    with pytest.raises(NotPermitted, match="in the queue 'exec'"):
        harness.control(plan).pause_queue("exec", reason=WHY)
    of_domain = replace(OPS, domains=frozenset({"billing"}))
    with pytest.raises(NotPermitted, match="a queue may hold jobs of other domains"):
        harness.control(of_domain).pause_queue("exec", reason=WHY)
    with pytest.raises(NotPermitted, match="affects jobs outside this bound"):
        harness.control(replace(ADMIN, queues=frozenset({"exec"}))).kill("queue:exec", reason=WHY)


def test_a_dry_run_shows_the_state_and_changes_nothing(harness: SwitchHarness) -> None:
    request = SwitchRequest(Kind.KILL, "all", Mode.HOLD, lasts=timedelta(hours=1))
    turned = turn_switch(
        harness.database, harness.switches, request, identity=ADMIN, reason=None, dry_run=True
    )
    assert (turned.outcome, turned.state.mode) == ("dry_run", Mode.HOLD)
    assert (harness.in_redis(), harness.in_postgres()) == ({}, {})
    assert harness.audited(turned.request_id) == []


def test_without_postgres_the_error_names_the_way_that_is_left(harness: SwitchHarness) -> None:
    with opened_database("postgresql://127.0.0.1:1/nowhere") as down:
        control = Control(down, harness.control()._records, ADMIN, switches=harness.switches)
        with pytest.raises(ServerUnreachable, match=r"Nothing was changed.*--break-glass"):
            control.kill("all", reason=WHY)
    assert harness.in_redis() == {}


# -- Redis does not answer, forgets, or comes back old ------------------------------------------


def test_while_redis_is_down_a_switch_waits_for_the_keeper(harness: SwitchHarness) -> None:
    killed = without_redis(harness).kill("all", reason=WHY)
    assert (killed.outcome, harness.outcomes(killed.request_id)) == ("pending", ["requested"])
    assert "The relay puts it there" in killed.why
    harness.keeper.run_once()
    assert harness.in_redis() == {ALL: killed.state}
    assert harness.outcomes(killed.request_id) == ["requested", "applied"]
    harness.keeper.run_once()
    assert harness.outcomes(killed.request_id) == ["requested", "applied"]


def test_a_lift_while_redis_is_down_reaches_it_and_nothing_stays(harness: SwitchHarness) -> None:
    harness.control().kill("all", reason=WHY)
    lifted = without_redis(harness).lift("all", reason=WHY)
    assert list(harness.switches.read().in_force()) == [ALL]
    harness.keeper.run_once()
    assert harness.in_redis() == {ALL: lifted.state}
    assert harness.switches.read().in_force() == {}


def test_of_switches_turned_while_redis_is_down_the_last_holds_and_each_has_its_outcome(
    harness: SwitchHarness,
) -> None:
    down = without_redis(harness)
    turned = [down.kill("all", reason=WHY), down.lift("all", reason=WHY)]
    turned.append(down.kill("all", reason=WHY, hold=True))
    harness.keeper.run_once()
    assert harness.in_redis() == {ALL: turned[-1].state}
    for one in turned:
        assert harness.outcomes(one.request_id) == ["requested", "applied"]


def test_a_flush_and_a_restore_of_redis_lift_nothing(harness: SwitchHarness) -> None:
    control = harness.control()
    old = control.kill("all", reason=WHY)
    control.lift("all", reason=WHY)
    paused = control.pause_queue("exec", reason=WHY)
    before = harness.in_redis()
    harness.client.delete(harness.switches.key)
    harness.keeper.run_once()
    assert harness.in_redis() == before
    # A snapshot from when the kill switch was on, and nothing was paused.
    harness.client.delete(harness.switches.key)
    harness.switches.put(ALL, old.state)
    harness.keeper.run_once()
    assert harness.in_redis() == before
    assert harness.switches.read().in_force() == {EXEC: paused.state}


def test_a_switch_ends_by_itself_once_with_an_audit_row(
    servers: Servers, database: Engine, harness: SwitchHarness
) -> None:
    paused = harness.control().pause_queue("exec", reason=WHY, lasts=timedelta(milliseconds=1))
    other = SwitchHarness(servers.valkey_url(), database, namespace=harness.settings.namespace)
    harness.keeper.run_once()
    other.keeper.run_once()
    ended = harness.in_postgres()[EXEC]
    assert (ended.mode, ended.since_us) == (Mode.OFF, paused.state.until_us)
    assert harness.in_redis() == {EXEC: ended}
    (row,) = harness.audited(ended.request_id)
    assert (row["action_type"], row["outcome"]) == (Action.RESUME_QUEUE, "applied")
    assert (row["operator_identity"], row["identity_via"]) == ("local:relay", "relay")
    assert row["detail"]["ended"] == str(paused.request_id)
    other.client.close()


# -- Redis has what Postgres has not ------------------------------------------------------------


def test_what_only_redis_has_is_taken_after_a_while_and_audited(
    servers: Servers, database: Engine
) -> None:
    clock = YardClock()
    harness = SwitchHarness(servers.valkey_url(), database, clock)
    now_us = harness.switches.read().now_us
    state = SwitchState(
        Mode.HOLD,
        version=next_version(0, now_us, odd=True),
        since_us=now_us,
        operator="mallory",
        via="token:1",
        reason=WHY,
        request_id="17",
    )
    harness.switches.put(ALL, state)
    harness.keeper.run_once()
    clock.advance(timedelta(seconds=29))
    harness.keeper.run_once()
    assert harness.in_postgres() == {}
    clock.advance(timedelta(seconds=1))
    harness.keeper.run_once()
    assert harness.in_postgres() == {ALL: state}
    row = harness.last_audited()
    assert (row["operator_identity"], row["outcome"]) == ("broker:unverified", "applied")
    assert row["detail"]["claims"]["operator"] == "mallory"
    harness.keeper.run_once()
    assert harness.last_audited()["id"] == row["id"]
    # And it can be lifted as any other.
    lifted = harness.control().lift("all", reason=WHY)
    assert lifted.former == state
    assert harness.in_redis() == {ALL: lifted.state}
    harness.client.close()


def test_a_version_that_no_clock_gives_blocks_nobody(harness: SwitchHarness) -> None:
    ahead = SwitchState(Mode.HOLD, version=9 * 10**15, since_us=1)
    harness.client.hset(harness.switches.key, str(ALL), ahead.encode())
    harness.keeper.run_once()
    assert harness.in_postgres() == {}
    lifted = harness.control().lift("all", reason=WHY)
    assert lifted.former == UNREADABLE
    assert harness.in_redis() == {ALL: lifted.state}


def test_a_value_that_cannot_be_read_can_be_turned_off_whatever_version_it_shows(
    harness: SwitchHarness,
) -> None:
    ahead = harness.switches.read().now_us + 3_600_000_000
    harness.client.hset(harness.switches.key, str(ALL), f"stop 0 1 {ahead} {{}}")
    lifted = harness.control().lift("all", reason=WHY)
    assert lifted.outcome == "applied"
    assert harness.in_redis() == {ALL: lifted.state}


def test_a_value_that_cannot_be_read_holds_is_reported_once_and_can_be_turned_off(
    harness: SwitchHarness, caplog: pytest.LogCaptureFixture
) -> None:
    harness.client.hset(harness.switches.key, str(ALL), "hold")
    harness.keeper.run_once()
    harness.keeper.run_once()
    said = [record.getMessage() for record in caplog.records if "cannot be read" in record.message]
    assert len(said) == 1
    assert "as a hold" in said[0]
    assert list(harness.switches.read().in_force()) == [ALL]
    assert harness.in_postgres() == {}
    lifted = harness.control().lift("all", reason=WHY)
    assert harness.in_redis() == harness.in_postgres() == {ALL: lifted.state}


def test_a_value_that_cannot_be_read_is_replaced_by_that_of_postgres(
    harness: SwitchHarness,
) -> None:
    control = harness.control()
    control.kill("all", reason=WHY)
    lifted = control.lift("all", reason=WHY)
    harness.client.hset(harness.switches.key, str(ALL), "junk")
    harness.keeper.run_once()
    assert harness.in_redis() == {ALL: lifted.state}


def test_a_field_of_a_job_type_can_be_any(harness: SwitchHarness) -> None:
    field = SwitchField.kill("type:app.tasks: send mail")
    turned = harness.control().kill(field.on, reason=WHY, force=True)
    assert harness.in_postgres() == {field: turned.state}


def test_a_restart_of_redis_keeps_the_switches(server: RedisServer, database: Engine) -> None:
    harness = SwitchHarness(server.url, database)
    killed = harness.control().kill("all", reason=WHY)
    server.kill()
    down = harness.control().pause_queue("exec", reason=WHY)
    assert down.outcome == "pending"
    server.start()
    harness.keeper.run_once()
    assert harness.in_redis() == {ALL: killed.state, EXEC: down.state}
    harness.client.close()


def fill(harness: SwitchHarness) -> None:
    """Write until the server refuses it, and expect that it does."""
    for number in range(1_000):
        try:
            harness.client.set(f"filler:{number}", "x" * 10_000)
        except OutOfMemory:
            return
    raise AssertionError("the server has no limit")


def test_a_redis_whose_memory_is_full_takes_a_switch_all_the_same(
    tmp_path: Path, database: Engine
) -> None:
    full = RedisServer(tmp_path / "full", ["--maxmemory", "4mb"])
    full.start()
    harness = SwitchHarness(full.url, database)
    try:
        fill(harness)
        killed = harness.control().kill("all", reason=WHY)
        assert killed.outcome == "applied"
        assert harness.in_redis() == {ALL: killed.state}
        trusting = harness.settings.model_copy(update={"trust_local": True})
        request = SwitchRequest(Kind.PAUSE, "queue:exec", Mode.HOLD)
        paused = turn_by_trust(trusting, harness.switches, request, WHY)
        assert harness.in_redis()[EXEC] == paused
    finally:
        harness.client.close()
        full.stop()
