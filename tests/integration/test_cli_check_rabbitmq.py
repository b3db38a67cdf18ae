"""`taskyard check` with RabbitMQ as the broker: its version, and queues that were there before."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from kombu import Connection

from servers import Servers
from support.rabbitmq import chosen
from support.shell import Shell, connected_shell
from taskyard.broker import connection
from taskyard.ops.cli.checks import rabbitmq_server
from taskyard.ops.cli.checks.finding import Level
from taskyard.queues import kombu_queues
from taskyard.settings import Settings, load


@pytest.fixture
def shell(tmp_path: Path, servers: Servers, database_url: str) -> Shell:
    return connected_shell(tmp_path, servers, database_url, broker_url=servers.rabbitmq_url())


@pytest.fixture
def settings(shell: Shell) -> Settings:
    return load(shell.variables, shell.folder).settings


def names(broker: Connection, settings: Settings) -> list[str]:
    """Which of the work queues are there."""
    found = []
    for queue in kombu_queues(settings, rabbit=True):
        try:
            with broker.channel() as channel:
                queue(channel).queue_declare(passive=True)
        except broker.channel_errors:
            continue
        found.append(queue.name)
    return found


def test_queues_that_are_missing_are_fine_and_stay_missing(
    shell: Shell, settings: Settings
) -> None:
    ran = shell.run("check")

    assert ran.code == 0
    assert "✓ broker     RabbitMQ " in ran.out
    missing = ", ".join(settings.broker_name(queue) for queue in settings.queues)
    assert f"✓ broker     work queues that will be declared: {missing}\n" in ran.out
    with connection(settings) as broker:
        assert names(broker, settings) == []


def test_queues_that_workers_declared_are_as_they_should_be(
    shell: Shell, settings: Settings
) -> None:
    queues = kombu_queues(settings, rabbit=True)
    with connection(settings) as broker:
        for queue in queues:
            queue(broker.default_channel).declare()

    ran = shell.run("check")

    assert ran.code == 0
    listed = ", ".join(queue.name for queue in queues)
    assert f"✓ broker     work queues as they should be: {listed}\n" in ran.out


def test_a_queue_with_other_arguments_is_told_with_the_policy_that_rabbitmq_takes(
    shell: Shell, settings: Settings, servers: Servers
) -> None:
    name = settings.broker_name("exec")
    with connection(settings) as broker:
        broker.default_channel.queue_declare(name, durable=True, auto_delete=False)

    ran = shell.run("check")

    assert ran.code == 0
    assert f"! broker     queue {name} exists and is used as it is. What this costs: " in ran.out
    assert "it has no x-max-priority: RabbitMQ does not serve urgent jobs before others" in ran.out
    assert "but no priorities" in ran.out
    assert "Run: rabbitmqctl set_policy --vhost / " in ran.out
    (line,) = [line for line in ran.out.splitlines() if "set_policy" in line]
    program, *words = shlex.split(line.partition("Run: ")[2])
    assert program == "rabbitmqctl"
    servers.rabbitmq.ctl(*words)
    policies = servers.rabbitmq.ctl("list_queues", "name", "policy")
    assert f"{name}\ttaskyard-{name}" in policies


def test_what_workers_choose_and_why_is_told(shell: Shell, settings: Settings) -> None:
    auto = shell.run("check")
    quorum = shell.run("check", TASKYARD_RABBITMQ_QUEUE_TYPE="quorum")

    choice = chosen(settings)
    assert f"✓ broker     {choice}" in auto.out
    mark = "✓" if choice.queue_type == "quorum" else "!"
    assert f"{mark} broker     {choice.server}: quorum queues with " in quorum.out
    assert ("TASKYARD_RABBITMQ_QUEUE_TYPE=classic" in quorum.out) is (mark == "!")
    assert quorum.code == 0


def test_a_job_type_that_may_run_longer_than_rabbitmq_waits_is_told(shell: Shell) -> None:
    file = shell.folder / "types.yaml"
    file.write_text("job_types: {plan_generation: {time_limit_s: 7200}}")

    ran = shell.run("check", TASKYARD_JOB_TYPES=str(file))

    assert ran.code == 0
    assert (
        "! job types  plan_generation may run 7200 s, and RabbitMQ takes back a message" in ran.out
    )
    assert ran.out.count("consumer_timeout") == 2


def test_a_rabbitmq_that_does_not_answer_names_the_brokers_variable(tmp_path: Path) -> None:
    ran = Shell(tmp_path).run(
        "check", "--json", TASKYARD_BROKER_URL="amqp://guest:hunter2@127.0.0.1:1//"
    )

    (finding,) = [one for one in ran.document["findings"] if one["subject"] == "broker"]
    assert finding["exit_code"] == 3
    assert finding["detail"].startswith("RabbitMQ at amqp://guest:[redacted]@127.0.0.1:1//")
    assert "correct TASKYARD_BROKER_URL" in finding["detail"]
    assert "hunter2" not in ran.out


@pytest.mark.parametrize(
    ("version", "level"),
    [("3.9.29", "error"), ("3.10.0", "ok"), ("4.1.2", "ok"), ("", "error")],
)
def test_a_version_under_the_minimum_is_an_error(version: str, level: str) -> None:
    finding = rabbitmq_server.judge_version({"version": version})

    assert finding.level is Level(level)
