"""What a bounded token reads at the command line: only what is within its queues and domains."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine

from servers import Servers
from support.audit import entry
from support.letters import DIED_US, make_delivery, make_letter
from support.shell import Ran, Shell, connected_shell
from taskyard import audit, ledger
from taskyard.clock import from_us
from taskyard.jobs import Event, State
from taskyard.mirror.store_letters import store_letters
from taskyard.records import Records
from taskyard.settings import load
from taskyard.store import connect

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True

WHY = ("--reason", "Ada joined the payments team, ticket 12345")
OLD = ("--since", "2025-01-01", "--limit", "1000")
MALFORMED = "nonsense"
READS = [
    ("dlq", "list"),
    ("dlq", "show", "0123456789"),
    ("dlq", "stats"),
    ("jobs", "list"),
    ("jobs", "show", "0123456789"),
    ("jobs", "wait", "0123456789"),
    ("audit", "list"),
    ("audit", "list", "--unverified"),
    ("audit", "show", "0123456789"),
    ("queues", "list"),
    ("tokens", "list"),
    ("users", "list"),
]


@dataclass(frozen=True)
class Traces:
    """What one job left in Postgres: itself, its dead letter, an audit row; and a job in Redis."""

    job: str
    letter: str
    request: str
    live: str


@pytest.fixture
def admin(tmp_path: Path, servers: Servers, database_url: str) -> Shell:
    """On a machine whose users are trusted."""
    return connected_shell(tmp_path, servers, database_url, TASKYARD_TRUST_LOCAL="1")


@pytest.fixture
def records(admin: Shell) -> Iterator[Records]:
    settings = load(admin.variables).settings
    with connect(settings.need_redis_url()) as client:
        yield Records(client, settings)
        client.delete(*client.keys(f"*{settings.namespace}*"), "nothing")


def token(admin: Shell, *bounds: str) -> str:
    name = f"ada-{uuid.uuid4().hex[:8]}@example.com"
    ran = admin.run("tokens", "create", name, "--role", "viewer", *bounds, *WHY)
    assert ran.code == 0, ran.err
    return ran.out.strip()


def traces(database: Engine, records: Records, queue: str, domain: str) -> Traces:
    job, live = str(uuid.uuid4()), str(uuid.uuid4())
    letter = make_letter(job, queue=queue, domain=domain)
    made = entry(target_request_id=job, dead_letter_id=uuid.UUID(letter.letter_id))
    facts: dict[str, str | int] = {
        "type": "plan_generation", "queue": queue, "domain": domain, "generation": 0
    }  # fmt: skip
    with database.begin() as connection:
        store_letters(connection, [make_delivery(letter)])
        step = (Event.ADMIT, State.ACCEPTED, from_us(DIED_US))
        ledger.write(connection, [ledger.Entry(job, DIED_US, 1, *step, facts)])
        audit.write(connection, made)
    of_domain = Records(records.client, records.settings, domain_of=lambda _: domain)
    of_domain.admit(live, job_type="plan_generation", queue=queue, priority=3, unique_for_s=0)
    return Traces(job, letter.letter_id, str(made.request_id), live)


@pytest.mark.parametrize("bounds", [("--queues", "exec"), ("--domains", "shop")])
def test_a_bounded_token_reads_only_what_is_within_its_bounds(
    admin: Shell, database: Engine, records: Records, bounds: tuple[str, ...]
) -> None:
    own = traces(database, records, "exec", "shop")
    other = traces(database, records, "plan", "billing")
    text = token(admin, *bounds)

    def run(*words: str) -> Ran:
        return admin.run(*words, TASKYARD_TOKEN=text)

    def ids(name: str, *words: str) -> set[str]:
        return {row[name] for row in run(*words, "--json").document}

    jobs = ids("job_id", "jobs", "list", *OLD)
    letters = ids("original_request_id", "dlq", "list", *OLD)
    requests = ids("request_id", "audit", "list", "--limit", "1000")
    assert own.job in jobs & letters and other.job not in jobs | letters  # noqa: PT018
    assert own.request in requests and other.request not in requests  # noqa: PT018
    everything = admin.run("dlq", "stats", "--json").document
    assert run("dlq", "stats", "--json").document["total"] < everything["total"]
    for noun, of_own, of_other in (
        ("jobs", own.job, other.job),
        ("jobs", own.live, other.live),
        ("dlq", own.letter, other.letter),
        ("audit", own.request, other.request),
    ):
        assert run(noun, "show", of_own).code == 0
        for name in (of_other, of_other[:13]):
            refused = run(noun, "show", name)
            assert refused.code == 4, (noun, refused)
            assert "there is no" in refused.err or "has no request" in refused.err
        assert admin.run(noun, "show", of_other).code == 0
    assert run("jobs", "wait", other.live, "--timeout", "0").code == 4


def test_of_tokens_and_grants_a_bounded_identity_sees_its_own(admin: Shell) -> None:
    bounded, free = token(admin, "--queues", "exec"), token(admin)
    subject = admin.run("whoami", "--json", TASKYARD_TOKEN=bounded).document["subject"]
    for name in (subject, f"bob-{uuid.uuid4().hex[:8]}@example.com"):
        assert admin.run("users", "grant", name, "--role", "viewer", *WHY).code == 0

    def subjects(noun: str, text: str) -> set[str]:
        rows = admin.run(noun, "list", "--json", TASKYARD_TOKEN=text).document
        return {row["subject"] for row in rows}

    for noun in ("tokens", "users"):
        assert subjects(noun, bounded) == {subject}
        assert len(subjects(noun, free)) > 1


def test_of_the_queues_a_bounded_identity_sees_those_of_its_bounds(admin: Shell) -> None:
    def queues(*bounds: str) -> set[str]:
        text = token(admin, *bounds)
        rows = admin.run("queues", "list", "--json", TASKYARD_TOKEN=text).document
        return {row["queue"] for row in rows}

    assert queues("--queues", "exec") == {"exec"}
    assert queues("--domains", "shop") == set()
    assert {"exec", "plan", "ops"} <= queues()


def test_a_token_without_bounds_reads_everything(
    admin: Shell, database: Engine, records: Records
) -> None:
    made, text = traces(database, records, "plan", "billing"), token(admin)
    for noun, name in (("jobs", made.job), ("dlq", made.letter), ("audit", made.request)):
        assert admin.run(noun, "show", name, TASKYARD_TOKEN=text).code == 0


@pytest.mark.parametrize("words", READS, ids=" ".join)
def test_a_refused_token_refuses_the_read_too(admin: Shell, words: tuple[str, ...]) -> None:
    for trust in ("0", "1"):
        ran = admin.run(*words, "--json", TASKYARD_TOKEN=MALFORMED, TASKYARD_TRUST_LOCAL=trust)
        assert ran.code == 6, ran
        assert "TASKYARD_TOKEN does not hold a token" in ran.err
        assert json.loads(ran.out)["error"]["kind"] == "TokenRefused"


def test_a_bounded_identity_sees_its_own_rows_in_the_audit_log(
    admin: Shell, database: Engine
) -> None:
    text = token(admin, "--queues", "exec")
    subject = admin.run("whoami", "--json", TASKYARD_TOKEN=text).document["subject"]
    own, other = entry(operator_identity=subject), entry(operator_identity="bob@example.com")
    with database.begin() as connection:
        for row in (own, other):
            audit.write(connection, row)
    rows = admin.run("audit", "list", "--limit", "1000", "--json", TASKYARD_TOKEN=text).document
    requests = {row["request_id"] for row in rows}  # with those of the other tests' jobs in `exec`
    assert str(own.request_id) in requests
    assert str(other.request_id) not in requests
    assert "create_token" not in {row["action_type"] for row in rows}
