"""Pause and kill switch without Postgres: by a signed form, or by local trust; and what follows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from servers import Servers
from support.databases import owner_url
from support.signing import Keeper
from support.switched import ALL, WHY, SwitchHarness
from taskyard.access import Role
from taskyard.access.credential_faults import Fault
from taskyard.access.verify_credential import Verifier
from taskyard.audit import list_unverified
from taskyard.control.break_glass import SwitchForm, sign_form, turn_by_form, turn_by_trust
from taskyard.control.switch_request import SwitchRequest
from taskyard.database import opened as opened_database
from taskyard.errors import (
    CredentialRefused,
    InvalidPayload,
    InvalidReason,
    InvalidSettings,
    InvalidSwitch,
    MissingSetting,
    NotPermitted,
    Refused,
)
from taskyard.mirror.audit_worker_verbs import is_verb, store_verbs
from taskyard.mirror.lifecycle_stream import StreamEntry
from taskyard.records.job_keys import Keys
from taskyard.settings import Settings
from taskyard.switches import Kind, Mode, SwitchState
from taskyard.testing import YardClock

# Mirror, relay and operators: by the role that they have in production.
AS_RUNTIME = True

HOURS_2 = timedelta(hours=2)
WEEK = timedelta(days=7)
KILL = SwitchRequest(Kind.KILL, "all", Mode.HOLD, lasts=HOURS_2)
LIFT = SwitchRequest(Kind.KILL, "all", Mode.OFF)
PAUSE = SwitchRequest(Kind.PAUSE, "queue:exec", Mode.HOLD)


@dataclass
class Scene:
    """An operator with a key, a Redis, and a mirror that stores when the test says so."""

    harness: SwitchHarness
    keeper: Keeper
    settings: Settings

    def sign(self, request: SwitchRequest = KILL, **options: Any) -> SwitchForm:
        return sign_form(self.settings, request, WHY, **{"life": WEEK, **options})

    def apply(self, form: SwitchForm) -> SwitchState:
        return turn_by_form(self.settings, self.harness.switches, form)

    def entries(self) -> list[StreamEntry]:
        raw: Any = self.harness.client.xrange(Keys(self.settings.namespace).lifecycle)
        return [StreamEntry(name.decode(), fields) for name, fields in raw]

    def mirror(self, times: int = 1) -> None:
        verifier = Verifier(self.settings)
        for _ in range(times):
            with self.harness.database.begin() as connection:
                store_verbs(connection, [e for e in self.entries() if is_verb(e)], verifier, ())

    def denials(self) -> dict[str, int]:
        since = datetime.now(UTC) - timedelta(minutes=2)
        found = list_unverified(self.harness.database, since, 100)
        return {row["why"]: row["count"] for row in found if row["source"] == "broadcast"}


@pytest.fixture
def scene(servers: Servers, database: Engine, tmp_path: Path) -> Iterator[Scene]:
    url = owner_url(servers, database.url.render_as_string(hide_password=False))
    with opened_database(url) as owner, owner.begin() as connection:
        connection.execute(text("DELETE FROM switches; DELETE FROM unverified_denials"))
    keeper = Keeper(tmp_path / "keys", role=Role.ADMIN)
    harness = SwitchHarness(servers.valkey_url(), database)
    changes = {"signing_key": keeper.pem, "public_keys": keeper.ring, "require_reason": "strict"}
    yield Scene(harness, keeper, harness.settings.model_copy(update=changes))
    harness.client.close()


def test_a_form_turns_the_switch_that_it_names_in_redis_alone(scene: Scene) -> None:
    form = scene.sign()
    state = scene.apply(form)
    assert scene.harness.in_redis() == {ALL: state}
    assert (state.mode, state.operator, state.reason) == (Mode.HOLD, scene.keeper.subject, WHY)
    assert state.via == f"key:{scene.keeper.key.key_id}"
    assert state.until_us - state.since_us == 2 * 3600 * 1_000_000
    assert scene.harness.in_postgres() == {}


def test_a_form_is_text_that_says_what_it_does_and_hides_its_credential(scene: Scene) -> None:
    form = scene.sign()
    assert SwitchForm.read(form.model_dump_json()) == form
    assert (form.switch, form.mode, form.lasts_s, form.reason) == ("kill all", "hold", 7200, WHY)
    assert form.credential not in repr(form)


def test_the_mirror_brings_row_and_audit_rows_once(scene: Scene) -> None:
    state = scene.apply(scene.sign())
    scene.mirror(times=2)
    scene.harness.keeper.run_once()
    assert scene.harness.in_postgres() == scene.harness.in_redis() == {ALL: state}
    requested, applied = scene.harness.audited(state.request_id)
    assert (requested["outcome"], applied["outcome"]) == ("requested", "applied")
    assert requested["operator_identity"] == scene.keeper.subject
    assert requested["identity_via"] == state.via
    assert (requested["reason"], requested["action_type"]) == (WHY, "engage_kill_switch")
    assert requested["target_request_id"] == "kill all"
    assert requested["detail"]["break_glass"] is True
    assert scene.denials() == {}


def test_a_form_is_taken_once(scene: Scene) -> None:
    form, other = scene.sign(), scene.sign(LIFT)
    scene.apply(form)
    lifted = scene.apply(other)
    with pytest.raises(CredentialRefused) as refused:
        scene.apply(form)
    assert refused.value.code == Fault.NONCE_USED
    assert scene.harness.in_redis() == {ALL: lifted}
    scene.mirror()
    assert scene.harness.in_postgres() == {ALL: lifted}


def test_what_was_turned_without_postgres_is_older_than_what_follows(scene: Scene) -> None:
    """An operator with Postgres lifts it before the mirror has brought it: it stays lifted."""
    killed = scene.apply(scene.sign())
    lifted = scene.harness.control().lift("all", reason=WHY)
    assert lifted.former == killed
    scene.mirror()
    scene.harness.keeper.run_once()
    assert scene.harness.in_redis() == scene.harness.in_postgres() == {ALL: lifted.state}
    assert scene.harness.outcomes(killed.request_id) == ["requested", "applied"]


def test_what_postgres_knows_is_lifted_without_it(scene: Scene) -> None:
    killed = scene.harness.control().kill("all", reason=WHY)
    lifted = scene.apply(scene.sign(LIFT))
    assert lifted.version > killed.state.version
    # The relay must not bring the older state back meanwhile.
    scene.harness.keeper.run_once()
    assert scene.harness.in_redis() == {ALL: lifted}
    scene.mirror()
    scene.harness.keeper.run_once()
    assert scene.harness.in_redis() == scene.harness.in_postgres() == {ALL: lifted}


def test_of_a_form_nothing_can_be_changed(scene: Scene) -> None:
    form = scene.sign()
    for change in (
        {"mode": Mode.REFUSE},
        {"lasts_s": None},
        {"lasts_s": 7201},
        {"reason": "Another reason, incident 1"},
        {"switch": "kill queue:exec"},
        {"switch": "pause queue:exec"},
    ):
        with pytest.raises(CredentialRefused, match=r"is for another|is for other"):
            scene.apply(form.model_copy(update=change))
    assert scene.harness.in_redis() == {}
    assert scene.apply(form).mode is Mode.HOLD


def test_a_form_is_for_one_namespace(scene: Scene) -> None:
    elsewhere = scene.settings.model_copy(update={"namespace": "elsewhere"})
    with pytest.raises(CredentialRefused) as refused:
        turn_by_form(elsewhere, scene.harness.switches, scene.sign())
    assert refused.value.code == Fault.WRONG_AUDIENCE


def test_a_form_ends(scene: Scene) -> None:
    clock = YardClock()
    form = scene.sign(life=timedelta(hours=3), clock=clock)
    clock.advance(timedelta(hours=3, minutes=6))
    with pytest.raises(CredentialRefused) as refused:
        turn_by_form(scene.settings, scene.harness.switches, form, clock)
    assert refused.value.code == Fault.EXPIRED


@pytest.mark.parametrize("life", [timedelta(0), timedelta(days=31)])
def test_a_form_lives_for_at_most_thirty_days(scene: Scene, life: timedelta) -> None:
    with pytest.raises(InvalidPayload, match="valid for at most 30 days"):
        scene.sign(life=life)


def test_a_form_takes_no_time_of_the_day(scene: Scene) -> None:
    until = datetime.now(UTC) + HOURS_2
    with pytest.raises(InvalidPayload, match="a duration, which begins when it is used"):
        scene.sign(SwitchRequest(Kind.KILL, "all", Mode.HOLD, until=until))


def test_a_form_needs_key_ring_reason_and_right(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(MissingSetting, match="TASKYARD_SIGNING_KEY"):
        sign_form(Settings(), KILL, WHY, life=WEEK)
    without_ring = scene.settings.model_copy(update={"public_keys": None})
    with pytest.raises(MissingSetting, match="TASKYARD_PUBLIC_KEYS"):
        sign_form(without_ring, KILL, WHY, life=WEEK)
    with pytest.raises(MissingSetting, match="TASKYARD_PUBLIC_KEYS"):
        turn_by_form(without_ring, scene.harness.switches, scene.sign())
    with pytest.raises(InvalidReason):
        sign_form(scene.settings, KILL, "fix it", life=WEEK)
    operator = Keeper(tmp_path / "operator")
    keys = {"signing_key": operator.pem, "public_keys": operator.ring}
    limited = scene.settings.model_copy(update=keys)
    with pytest.raises(NotPermitted, match="needs the role admin"):
        sign_form(limited, KILL, WHY, life=WEEK)
    pause = sign_form(limited, PAUSE, WHY, life=WEEK)
    assert turn_by_form(limited, scene.harness.switches, pause).mode is Mode.HOLD
    # A key that the receiver's ring does not have signs nothing there.
    with pytest.raises(CredentialRefused, match="a key that the receiver does not have"):
        scene.apply(pause)


def test_a_key_of_several_people_says_for_whom(scene: Scene, tmp_path: Path) -> None:
    both = Keeper(tmp_path / "both", role=Role.ADMIN, more_subjects=("bea@example.com",))
    keys = {"signing_key": both.pem, "public_keys": both.ring}
    settings = scene.settings.model_copy(update=keys)
    with pytest.raises(InvalidSettings, match="--as"):
        sign_form(settings, KILL, WHY, life=WEEK)
    form = sign_form(settings, KILL, WHY, life=WEEK, subject="bea@example.com")
    assert turn_by_form(settings, scene.harness.switches, form).operator == "bea@example.com"
    with pytest.raises(CredentialRefused, match="may not sign for its subject"):
        sign_form(settings, KILL, WHY, life=WEEK, subject="eve@example.com")


def test_what_is_off_cannot_be_turned_off_and_the_form_stays_good(scene: Scene) -> None:
    form = scene.sign(LIFT)
    with pytest.raises(Refused, match="kill all is off, so it cannot be turned off"):
        scene.apply(form)
    scene.apply(scene.sign())
    assert scene.apply(form).mode is Mode.OFF


def test_a_text_that_is_no_form_is_refused_without_quoting_it(scene: Scene) -> None:
    form = scene.sign()
    broken = form.model_dump_json().replace('"hold"', '"stop"')
    with pytest.raises(InvalidPayload, match="the form that `taskyard kill on --sign` prints") as e:
        SwitchForm.read(broken)
    assert form.credential not in str(e.value)
    with pytest.raises(InvalidPayload):
        SwitchForm.read("{}")
    for lasts in ("0", "1" + "0" * 30, "[1]"):
        with pytest.raises(InvalidPayload, match="lasts_s"):
            SwitchForm.read(form.model_dump_json().replace("7200", lasts))


@pytest.mark.parametrize("lasts", [timedelta(0), timedelta(days=3661)])
def test_a_form_for_a_time_that_no_switch_lasts_is_not_signed(
    scene: Scene, lasts: timedelta
) -> None:
    with pytest.raises(InvalidSwitch, match=r"within 3660 days; got .* another end, or none"):
        scene.sign(replace(KILL, lasts=lasts))


def test_the_clock_of_redis_may_go_back_before_a_switch_is_turned_again(scene: Scene) -> None:
    """A replica that follows may be minutes behind: its event is no less an operator's."""
    now_us = scene.harness.switches.read().now_us
    ahead = SwitchState(Mode.REFUSE, now_us + 200_000_000, since_us=now_us + 200_000_000)
    scene.harness.switches.put(ALL, ahead)
    state = scene.apply(scene.sign())
    scene.mirror()
    assert scene.harness.in_postgres() == {ALL: state}
    assert scene.harness.outcomes(state.request_id) == ["requested", "applied"]


# -- local trust --------------------------------------------------------------------------------


def test_the_trusted_user_of_a_machine_turns_a_switch_without_a_key(scene: Scene) -> None:
    trusting = scene.settings.model_copy(update={"trust_local": True})
    state = turn_by_trust(trusting, scene.harness.switches, KILL, WHY)
    assert (state.via, state.operator.startswith("local:")) == ("local", True)
    assert scene.harness.in_redis() == {ALL: state}
    scene.mirror(times=2)
    # No credential proves it: audited as claimed; the relay takes the state from Redis itself.
    assert scene.harness.in_postgres() == {}
    row = scene.harness.last_audited()
    assert (row["operator_identity"], row["outcome"]) == ("broker:unverified", "applied")
    assert row["detail"]["claims"]["operator"] == state.operator
    assert scene.harness.outcomes(row["request_id"]) == ["requested", "applied"]
    with pytest.raises(NotPermitted, match="TASKYARD_TRUST_LOCAL=1"):
        turn_by_trust(scene.settings, scene.harness.switches, KILL, WHY)


# -- entries of the stream that somebody made up ------------------------------------------------


def forged(entry: StreamEntry, **changes: str) -> dict[bytes, bytes]:
    named = {name.encode(): value.encode() for name, value in changes.items()}
    return {**entry.fields, **named}


def test_an_entry_that_was_made_up_changes_nothing(scene: Scene) -> None:
    """The credential is real and unused: only the switch that it signs can be brought by it."""
    state = scene.apply(scene.sign())
    (entry,) = scene.entries()
    stream = Keys(scene.settings.namespace).lifecycle
    for name, value in (
        ("switch", "kill queue:exec"),
        ("state", SwitchState(Mode.REFUSE, state.version, state.since_us).encode()),
        ("state", state.encode().replace(WHY, "Another reason, incident 1")),
        ("state", state.encode().replace(scene.keeper.subject, "eve@example.com")),
        ("state", state.encode().replace(str(state.version), "9000000000000001")),
        ("state", "junk"),
        ("lasts_s", "7"),
        ("lasts_s", "-1"),
        ("verb", "resume_queue"),
        ("at", "17"),
        ("credential", "v1.junk"),
    ):
        fields: dict[Any, Any] = forged(entry, **{name: value})
        scene.harness.client.delete(stream)
        scene.harness.client.xadd(stream, fields)
        scene.mirror()
        assert scene.harness.in_postgres() == {}, (name, value)
    assert scene.harness.audited(state.request_id) == []
    assert sum(scene.denials().values()) == 11


def test_entries_without_a_credential_fill_no_audit_log(scene: Scene) -> None:
    trusting = scene.settings.model_copy(update={"trust_local": True})
    turn_by_trust(trusting, scene.harness.switches, KILL, WHY)
    (entry,) = scene.entries()
    stream = Keys(scene.settings.namespace).lifecycle
    state = SwitchState.parse(entry.fields[b"state"])
    for number in range(150):
        request = f"{number:08d}-0000-4000-8000-000000000000"
        text_of = state.encode().replace(state.request_id, request)
        fields: dict[Any, Any] = forged(entry, state=text_of)
        scene.harness.client.xadd(stream, fields)
    scene.mirror()
    assert scene.denials()["too_many_switches"] >= 50
    assert scene.harness.in_postgres() == {}


def test_the_versions_of_both_ways_never_meet(scene: Scene) -> None:
    control = scene.harness.control()
    for _ in range(3):
        assert control.kill("all", reason=WHY).state.version % 2 == 0
        assert scene.apply(scene.sign(LIFT)).version % 2 == 1
