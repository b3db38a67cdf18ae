"""`taskyard check`: every fault with its cause and remedy, and nothing else is an error."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, text, update

from servers import RedisServer, Servers
from support.databases import owner_url
from support.shell import Ran, Shell
from taskyard import audit
from taskyard.access import Action
from taskyard.access.operator_task_table import REPLAY_TASK
from taskyard.database import opened
from taskyard.database.tables import AUDIT
from taskyard.jobs import Catalogue, JobType
from taskyard.jobs.handler_registry import Registry
from taskyard.ops.cli.checks import job_types, redis_server
from taskyard.ops.cli.checks.finding import Finding, Level, judged
from taskyard.settings import Settings


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that evicts and stores nothing."""
    options = ["--appendonly", "no", "--maxmemory-policy", "allkeys-lru"]
    server = RedisServer(tmp_path / "redis", options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def errors(ran: Ran) -> list[dict[str, Any]]:
    return [finding for finding in ran.document["findings"] if finding["level"] == "error"]


def test_with_everything_in_place_nothing_is_wrong(shell: Shell) -> None:
    ran = shell.run("check")

    assert ran.code == 0
    assert ran.out.endswith("nothing is wrong (1 warning)\n")
    assert "✓ Redis      Valkey " in ran.out
    assert (
        "! workers    no worker consumes any queue (plan, exec, locator, ops). "
        "Start one for all of them: taskyard worker\n"
    ) in ran.out
    assert "✓ letters    none waits for an operator\n" in ran.out
    assert "✓ Postgres   the schema is at " in ran.out
    assert "✗" not in ran.out


def test_the_same_as_a_document(shell: Shell) -> None:
    ran = shell.run("check", "--json")

    assert ran.code == 0
    assert ran.document["ok"] is True
    subjects = {finding["subject"] for finding in ran.document["findings"]}
    servers = {"Redis", "broker", "switches", "workers", "Postgres"}
    assert subjects == {"settings", "job types", "handlers", "letters"} | servers


def test_without_settings_each_missing_url_is_an_error(tmp_path: Path) -> None:
    ran = Shell(tmp_path).run("check")

    assert ran.code == 2
    for variable in ("TASKYARD_REDIS_URL", "TASKYARD_BROKER_URL", "TASKYARD_DATABASE_URL"):
        assert f"{variable} is not set" in ran.out
    assert ran.out.endswith("3 things wrong\n")


def test_broken_settings_are_the_only_finding(tmp_path: Path) -> None:
    ran = Shell(tmp_path).run("check", "--json", TASKYARD_LEASE_S="soon")

    assert ran.code == 2
    (finding,) = ran.document["findings"]
    assert finding["detail"].startswith("lease_s (from TASKYARD_LEASE_S): ")


def test_a_redis_that_evicts_and_forgets_is_an_error_and_a_warning(
    shell: Shell, forgetful: RedisServer
) -> None:
    ran = shell.run("check", TASKYARD_REDIS_URL=forgetful.url)

    assert ran.code == 2
    assert "✗ Redis      maxmemory-policy is allkeys-lru: when memory is low" in ran.out
    assert re.search(
        r"Run: redis-cli -h \S+ -p \d+ CONFIG SET maxmemory-policy noeviction", ran.out
    )
    assert "! Redis      no persistence: a restart loses every job" in ran.out
    assert ran.out.endswith("1 thing wrong (2 warnings)\n")  # no worker is the other


def test_servers_that_do_not_answer_do_not_hide_each_other(shell: Shell) -> None:
    nowhere = "redis://127.0.0.1:1/0"

    ran = shell.run(
        "check",
        "--json",
        TASKYARD_REDIS_URL=nowhere,
        TASKYARD_BROKER_URL="redis://127.0.0.1:1/1",
        TASKYARD_DATABASE_URL="postgresql://127.0.0.1:1/nothing",
    )

    assert ran.code == 3
    assert [error["subject"] for error in errors(ran)] == ["Redis", "broker", "Postgres"]
    for error, name in zip(errors(ran), ("REDIS", "BROKER", "DATABASE"), strict=True):
        assert f"TASKYARD_{name}_URL" in error["detail"]


def test_a_broker_of_another_kind_is_an_error(shell: Shell) -> None:
    ran = shell.run("check", "--json", TASKYARD_BROKER_URL="sqs://somewhere")

    assert ran.code == 2
    (error,) = errors(ran)
    assert error["subject"] == "broker"
    assert "got sqs://" in error["detail"]


def test_a_database_without_a_schema_names_the_command_that_makes_it(
    shell: Shell, servers: Servers
) -> None:
    ran = shell.run("check", "--json", TASKYARD_DATABASE_URL=servers.database_url())

    assert ran.code == 3
    (error,) = errors(ran)
    assert error["detail"].endswith("Run: taskyard migrate")


def test_a_type_on_an_unknown_queue_and_without_a_handler_is_told_twice(shell: Shell) -> None:
    file = shell.folder / "types.yaml"
    file.write_text("job_types:\n  paint:\n    queue: walls\n")

    ran = shell.run("check", "--json", TASKYARD_JOB_TYPES=str(file))

    assert ran.code == 2
    reported = [(error["subject"], error["detail"]) for error in errors(ran)]
    assert reported[0][0] == "job types"
    assert reported[0][1].startswith("paint: there is no queue 'walls'")
    assert reported[1] == (
        "handlers",
        "the job type 'paint' has no handler here, so its jobs become dead letters",
    )


def test_types_that_decorators_define_are_one_finding_and_no_warning() -> None:
    registry = Registry()
    registry.job("paint", queue="exec")(lambda payload: payload)
    registry.job("draw", queue="walls")(lambda payload: payload)

    found = list(job_types.handlers(Settings(), Catalogue.load(built_in=False), registry))

    (wrong,) = [finding for finding in found if finding.level is not Level.OK]
    assert wrong.detail.startswith("draw: there is no queue 'walls'")
    (said,) = [finding for finding in found if finding.detail.startswith("only decorators")]
    assert said.detail == (
        "only decorators define paint, draw: a service can enqueue them if it imports their "
        "modules, or if a file named by TASKYARD_JOB_TYPES defines them"
    )


def test_a_fault_that_file_and_decorator_have_only_together_is_an_error() -> None:
    registry = Registry()
    registry.job("paint", priority=5)(lambda payload: payload)
    catalogue = Catalogue({"paint": JobType(name="paint", queue="locator")})

    found = list(job_types.handlers(Settings(), catalogue, registry))

    (wrong,) = [finding for finding in found if finding.level is not Level.OK]
    assert wrong.detail.startswith("paint: queue 'locator' has priorities 1 to 3")


def test_an_operator_task_is_named_once_since_no_service_enqueues_it() -> None:
    registry = Registry()
    registry.job(REPLAY_TASK, queue="ops")(lambda payload: payload)

    found = list(job_types.handlers(Settings(), Catalogue.load(), registry))

    assert [finding.detail for finding in found if REPLAY_TASK in finding.detail] == [
        f"1: {REPLAY_TASK}"
    ]


def test_a_handler_without_a_type_is_an_error() -> None:
    registry = Registry()
    catalogue = Catalogue.load(built_in=True)

    @registry.job("unheard_of")
    def handle(payload: dict[str, object]) -> None: ...

    found = list(job_types.handlers(Settings(), catalogue, registry))

    assert any(
        finding.level is Level.ERROR
        and "the handler 'unheard_of' has no job type" in finding.detail
        for finding in found
    )


@pytest.mark.parametrize(
    ("facts", "level", "said"),
    [
        ({"redis_version": "6.2.0"}, Level.OK, "Redis 6.2.0 answers"),
        ({"redis_version": "6.0.16"}, Level.ERROR, "Redis 6.0.16 is too old"),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.5"}, Level.OK, "Valkey 7.2.5 answers"),
        ({"redis_version": "7.2.4", "valkey_version": "7.1.0"}, Level.ERROR, "too old"),
        ({}, Level.ERROR, "(no version) is too old"),
    ],
)
def test_versions_are_compared_by_product(facts: dict[str, str], level: Level, said: str) -> None:
    finding = redis_server.judge_version("Redis", facts)

    assert finding.level is level
    assert said in finding.detail


def test_a_cluster_and_a_replica_are_refused() -> None:
    cluster: Finding = redis_server.judge_mode(
        "Redis", {"cluster_enabled": 1}, "TASKYARD_REDIS_URL"
    )
    replica: Finding = redis_server.judge_mode("Redis", {"role": "slave"}, "TASKYARD_REDIS_URL")

    assert cluster.level is Level.ERROR
    assert "it is a cluster" in cluster.detail
    assert replica.level is Level.ERROR
    assert replica.remedy == "Set TASKYARD_REDIS_URL to the primary."


def test_a_decorator_without_a_queue_is_one_finding_and_the_files_types_stay_known() -> None:
    registry = Registry()
    registry.job("new", policy={"max_retries": 9})(lambda payload: payload)
    catalogue = Catalogue.load(built_in=True)
    found = list(judged("handlers", lambda: job_types.handlers(Settings(), catalogue, registry)))
    assert [finding.level for finding in found] == [Level.ERROR]
    assert f"{__file__}:" in found[0].detail
    assert list(job_types.known_types(catalogue, registry)) == list(catalogue)


def test_audit_rows_that_no_relay_seals_are_a_warning(
    servers: Servers, shell: Shell, empty_database: Engine
) -> None:
    entry = audit.Entry(uuid.uuid4(), Action.CONTROLLED_REPLAY, "anna", "token", "why", "applied")
    with empty_database.begin() as connection:
        audit.write(connection, entry)
        audit.write(connection, replace(entry, request_id=uuid.uuid4()))
    assert "for a seal" not in shell.run("check").out
    ours = empty_database.url.render_as_string(hide_password=False)
    with opened(owner_url(servers, ours)) as owner, owner.begin() as connection:
        connection.execute(text("ALTER TABLE operator_audit_log DISABLE TRIGGER USER"))
        connection.execute(update(AUDIT).values(performed_at=func.now() - timedelta(hours=2)))
        connection.execute(text("ALTER TABLE operator_audit_log ENABLE TRIGGER USER"))
    ran = shell.run("check")
    assert ran.code == 0
    assert "! audit log  2 rows wait for a seal, the oldest since " in ran.out
    assert "(2h): until a row has one, no change of it can be shown" in ran.out
