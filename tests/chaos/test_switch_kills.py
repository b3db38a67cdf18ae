"""Who turns a switch, and the relay, are killed at each seam; servers are flushed and restarted.

No switch is forgotten, none stays by mistake, and each request has one outcome.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Engine, select, text

from servers import RedisServer, Servers
from support.databases import owner_url
from support.proxy import Proxy, through
from support.shell import Shell
from support.signing import Keeper
from support.switched import ALL, EXEC, WHY, SwitchHarness
from support.waiting import eventually
from taskyard.access import Role
from taskyard.database import opened as opened_database
from taskyard.database.tables import AUDIT
from taskyard.records.job_keys import Keys
from taskyard.switches import Mode, SwitchState

pytestmark = pytest.mark.slow

# Relay and operators: by the role that they have in production.
AS_RUNTIME = True

ROOT = Path(__file__).parents[2]
PROMISED_S = 5.0


@pytest.fixture
def harness(server: RedisServer, servers: Servers, database: Engine) -> Iterator[SwitchHarness]:
    url = owner_url(servers, database.url.render_as_string(hide_password=False))
    with opened_database(url) as owner, owner.begin() as connection:
        connection.execute(text("DELETE FROM switches"))
    made = SwitchHarness(server.url, database)
    yield made
    made.client.close()


@pytest.fixture
def variables(harness: SwitchHarness, database_url: str) -> dict[str, str]:
    return {
        "TASKYARD_REDIS_URL": harness.settings.need_redis_url(),
        "TASKYARD_BROKER_URL": harness.settings.need_redis_url(),
        "TASKYARD_DATABASE_URL": database_url,
        "TASKYARD_NAMESPACE": harness.settings.namespace,
    }


def die_at(seam: str, act: str, variables: dict[str, str]) -> None:
    """Let a process act, and be killed at the seam."""
    own = {name: value for name, value in os.environ.items() if name[:9] != "TASKYARD_"}
    done = subprocess.run(
        [sys.executable, "-m", "support.switch_seams", seam, act],
        env={**own, **variables, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def requests(harness: SwitchHarness) -> dict[str, list[str]]:
    """The outcomes of each request on a switch of this test's, by action and in order."""
    states = harness.in_postgres().values()
    with harness.database.connect() as connection:
        query = select(AUDIT.c.action_type, AUDIT.c.outcome).where(
            AUDIT.c.request_id.in_([state.request_id for state in states])
        )
        found: dict[str, list[str]] = {}
        for action, outcome in connection.execute(query.order_by(AUDIT.c.id)):
            found.setdefault(action, []).append(outcome)
    return found


def test_before_the_commit_nothing_is_done(
    harness: SwitchHarness, variables: dict[str, str]
) -> None:
    die_at("before the commit", "kill", variables)
    harness.keeper.run_once()
    assert (harness.in_redis(), harness.in_postgres()) == ({}, {})
    assert requests(harness) == {}


@pytest.mark.parametrize(
    "seam", ["after the commit", "before Redis", "after Redis", "before the answer's commit"]
)
@pytest.mark.parametrize("act", ["kill", "lift"])
def test_after_the_commit_the_relay_goes_on(
    harness: SwitchHarness, variables: dict[str, str], seam: str, act: str
) -> None:
    if act == "lift":
        harness.control().kill("all", reason=WHY)
    die_at(seam, act, variables)
    harness.keeper.run_once()
    mode = Mode.HOLD if act == "kill" else Mode.OFF
    assert harness.in_postgres()[ALL].mode is mode
    assert harness.in_redis() == harness.in_postgres()
    (outcomes,) = requests(harness).values()
    assert outcomes == ["requested", "applied"]


@pytest.mark.parametrize("seam", ["before Redis", "after Redis", "before the answer's commit"])
def test_a_relay_that_is_killed_is_followed_by_the_next(
    harness: SwitchHarness, variables: dict[str, str], seam: str
) -> None:
    die_at("after the commit", "kill", variables)
    die_at(seam, "keep", variables)
    harness.keeper.run_once()
    assert harness.in_redis() == harness.in_postgres()
    assert requests(harness) == {"engage_kill_switch": ["requested", "applied"]}


@pytest.mark.parametrize("seam", ["before the end's commit", "after the end's commit"])
def test_a_switch_ends_once_though_the_relay_is_killed(
    harness: SwitchHarness, variables: dict[str, str], seam: str
) -> None:
    paused = harness.control().pause_queue("exec", reason=WHY, lasts=timedelta(milliseconds=1))
    die_at(seam, "keep", variables)
    harness.keeper.run_once()
    ended = harness.in_postgres()[EXEC]
    assert (ended.mode, ended.since_us) == (Mode.OFF, paused.state.until_us)
    assert harness.in_redis() == {EXEC: ended}
    assert requests(harness) == {"resume_queue": ["applied"]}


# -- the real relay ------------------------------------------------------------------------------


@contextmanager
def running(shell: Shell, *commands: str) -> Iterator[dict[str, subprocess.Popen[str]]]:
    log = (shell.folder / "daemons.log").open("w")
    started = {name: shell.start(name, stdout=log, stderr=log) for name in commands}
    try:
        yield started
    finally:
        for process in started.values():
            process.kill()
            process.wait(30)
        log.close()


def await_in_redis(harness: SwitchHarness, wanted: SwitchState, what: str) -> float:
    """Return after how many seconds Redis has the state."""
    began = monotonic()
    eventually(lambda: harness.in_redis().get(ALL) == wanted, what)
    return monotonic() - began


def test_after_a_flush_and_a_restart_of_redis_a_switch_is_in_force_within_five_seconds(
    harness: SwitchHarness, server: RedisServer, variables: dict[str, str], tmp_path: Path
) -> None:
    with running(Shell(tmp_path, variables), "relay"):
        killed = harness.control().kill("all", reason=WHY, hold=True)
        harness.client.flushall()
        # The relay may just have started; from then on it keeps its promise.
        await_in_redis(harness, killed.state, "the relay runs")
        took = []
        for _ in range(3):
            harness.client.flushall()
            took.append(await_in_redis(harness, killed.state, "in force after a flush"))
        server.kill()
        lifted = harness.control().lift("all", reason=WHY)
        assert lifted.outcome == "pending"
        server.start()
        took.append(await_in_redis(harness, lifted.state, "lifted after a restart"))
        assert max(took) < PROMISED_S, took
        answered = ["requested", "applied"]
        eventually(lambda: harness.outcomes(lifted.request_id) == answered, "its outcome")


def test_what_is_turned_while_postgres_is_down_is_in_both_stores_when_it_is_back(
    harness: SwitchHarness, variables: dict[str, str], database_url: str, tmp_path: Path
) -> None:
    keeper = Keeper(tmp_path / "keys", role=Role.ADMIN)
    at = urlsplit(database_url)
    with Proxy(str(at.hostname), int(at.port or 0)) as postgres:
        known = {"TASKYARD_PUBLIC_KEYS": str(keeper.ring)}
        cut = {"TASKYARD_DATABASE_URL": through(postgres, database_url), **known}
        shell = Shell(tmp_path, {**variables, **cut})
        killed = harness.control().kill("all", reason=WHY)
        with running(shell, "relay", "mirror"):
            harness.client.delete(harness.switches.key)
            await_in_redis(harness, killed.state, "the relay runs")
            stream = Keys(harness.settings.namespace).lifecycle
            # A mirror that starts without Postgres ends, for its supervisor to start it again.
            eventually(lambda: harness.client.exists(stream), "the mirror runs")
            postgres.die()
            words = ("kill", "off", "all", "--reason", WHY, "--break-glass")
            ran = shell.run(*words, TASKYARD_SIGNING_KEY=str(keeper.pem))
            assert (ran.code, ran.out) == (0, "kill all is off\n"), ran.err
            lifted = harness.in_redis()[ALL]
            postgres.revive()
            eventually(lambda: harness.in_postgres()[ALL] == lifted, "the mirror brings it")
            assert harness.in_redis() == {ALL: lifted}
            assert lifted.operator == keeper.subject
            answered = ["requested", "applied"]
            eventually(lambda: harness.outcomes(lifted.request_id) == answered, "its outcome")
