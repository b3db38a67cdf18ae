"""Whatever operators, outages, flushes, relay and mirror do: at the end both stores agree.

The last operator's word holds, whichever way it came.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from servers import Servers
from support.databases import owner_url
from support.signing import Keeper
from support.switched import ADMIN, ALL, WHY, SwitchHarness
from taskyard.access import Role
from taskyard.access.verify_credential import Verifier
from taskyard.control import Control
from taskyard.control.break_glass import sign_form, turn_by_form
from taskyard.control.switch_request import SwitchRequest
from taskyard.database import opened as opened_database
from taskyard.errors import Refused
from taskyard.mirror.audit_worker_verbs import is_verb, store_verbs
from taskyard.mirror.lifecycle_stream import StreamEntry
from taskyard.records.job_keys import Keys
from taskyard.store import connect
from taskyard.switches import Kind, Mode, RedisSwitches

# Mirror, relay and operators: by the role that they have in production.
AS_RUNTIME = True

pytestmark = pytest.mark.slow

MODES = st.sampled_from([Mode.REFUSE, Mode.HOLD, Mode.OFF])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["turn", "without redis", "without postgres"]), MODES),
        st.tuples(st.sampled_from(["relay", "mirror", "flush"]), st.just(Mode.OFF)),
    ),
    max_size=14,
)


class Word(NamedTuple):
    """What an operator said, by its number."""

    number: int
    mode: Mode


NOTHING = Word(0, Mode.OFF)


class World:
    """Both stores, and the model of each: which word it has heard last, and its mode."""

    def __init__(self, harness: SwitchHarness, keys: Keeper, owner: Engine) -> None:
        with owner.begin() as connection:
            connection.execute(text("DELETE FROM switches"))
        self.harness = harness
        changes = {"signing_key": keys.pem, "public_keys": keys.ring}
        self.settings = harness.settings.model_copy(update=changes)
        away = connect("redis://127.0.0.1:1/0", retries=0, timeout_s=1)
        away_switches = RedisSwitches(away, self.settings.namespace)
        self.control = harness.control()
        records: Any = self.control._records
        self.blind = Control(harness.database, records, ADMIN, switches=away_switches)
        self.postgres = self.redis = NOTHING
        self.events: list[Word] = []
        self.requests: list[str] = []

    def turn(self, mode: Mode) -> None:
        if self._by(self.control, mode, max(self.postgres, self.redis)):
            self.redis = self.postgres

    def without_redis(self, mode: Mode) -> None:
        self._by(self.blind, mode, self.postgres)

    def _by(self, control: Control, mode: Mode, known: Word) -> bool:
        refused = mode is Mode.OFF and known.mode is Mode.OFF
        try:
            if mode is Mode.OFF:
                turned = control.lift("all", reason=WHY)
            else:
                turned = control.kill("all", reason=WHY, hold=mode is Mode.HOLD)
        except Refused:
            assert refused
            return False
        assert not refused
        self.requests.append(str(turned.request_id))
        self.postgres = Word(len(self.requests), mode)
        return True

    def without_postgres(self, mode: Mode) -> None:
        request = SwitchRequest(Kind.KILL, "all", mode)
        form = sign_form(self.settings, request, WHY, life=timedelta(hours=1))
        refused = mode is Mode.OFF and self.redis.mode is Mode.OFF
        try:
            state = turn_by_form(self.settings, self.harness.switches, form)
        except Refused:
            assert refused
            return
        assert not refused
        self.requests.append(state.request_id)
        self.redis = Word(len(self.requests), mode)
        self.events.append(self.redis)

    def relay(self) -> None:
        self.harness.keeper.run_once()
        self.redis = max(self.redis, self.postgres)

    def mirror(self) -> None:
        raw: Any = self.harness.client.xrange(Keys(self.settings.namespace).lifecycle)
        entries = [StreamEntry(name.decode(), fields) for name, fields in raw]
        with self.harness.database.begin() as connection:
            verbs = [entry for entry in entries if is_verb(entry)]
            store_verbs(connection, verbs, Verifier(self.settings), ())
        self.postgres = max(self.postgres, *self.events, NOTHING)

    def flush(self) -> None:
        """Lose the switches alone: the stream is what the mirror reads next."""
        self.harness.client.delete(self.harness.switches.key)
        self.redis = NOTHING

    def check(self) -> None:
        """Let mirror and relay work: both stores have the last word, and each request its rows."""
        self.mirror()
        self.relay()
        in_redis, in_postgres = self.harness.in_redis(), self.harness.in_postgres()
        assert in_redis == in_postgres
        if self.requests:
            assert in_redis[ALL].request_id == self.requests[-1]
            assert in_redis[ALL].mode is self.postgres.mode
        for request in self.requests:
            assert self.harness.outcomes(request) == ["requested", "applied"]


@pytest.fixture(scope="module")
def owner(servers: Servers, database: Engine) -> Iterator[Engine]:
    url = owner_url(servers, database.url.render_as_string(hide_password=False))
    with opened_database(url) as opened:
        yield opened


@given(steps=STEPS)
@hypothesis_settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_the_last_word_holds_in_both_stores(
    servers: Servers,
    database: Engine,
    owner: Engine,
    tmp_path: Path,
    steps: list[tuple[str, Mode]],
) -> None:
    harness = SwitchHarness(servers.valkey_url(), database)
    world = World(harness, Keeper(tmp_path / "keys", role=Role.ADMIN), owner)
    for step, mode in steps:
        match step:
            case "turn":
                world.turn(mode)
            case "without redis":
                world.without_redis(mode)
            case "without postgres":
                world.without_postgres(mode)
            case _:
                getattr(world, step)()
    world.check()
    harness.client.close()
