"""`taskyard types`: the policy in force, field by field, with its origin."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.shell import Shell
from taskyard.access.operator_task_table import REPLAY_TASK
from taskyard.jobs import Catalogue, JobType, RetryPolicy
from taskyard.jobs.handler_registry import Registry
from taskyard.ops.cli.types.field_origins import by_decorator
from taskyard.ops.cli.types.listing import waits
from taskyard.ops.cli.types.policy import never_retried, waits_ms

OWN = """
job_types:
  test_execution:
    time_limit_s: 90
  send_invoice:
    queue: ops
    priority: 4
    owner: billing
job_retry_policies:
  test_execution:
    max_retries: 4
"""


HANDLER = """
from pydantic import BaseModel
from taskyard.jobs import job

class Order(BaseModel):
    number: int

POLICY = {"max_retries": 2, "no_retry_errors": ["no_customer"]}

@job("book_order", queue="exec", time_limit_s=30, policy=POLICY)
def book_order(order: Order) -> None: ...
"""
OVER_IT = """
job_types: {book_order: {queue: plan}}
job_retry_policies: {book_order: {max_retries: 5}}
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "own.yaml").write_text(OWN)
    return Shell(tmp_path, {"TASKYARD_JOB_TYPES": "own.yaml", "TASKYARD_DEATH_LIMIT": "5"})


def test_each_field_has_the_value_in_force_and_its_origin(shell: Shell) -> None:
    shown = shell.run("types", "show", "test_execution", "--json").document
    fields = shown["fields"]

    assert shown["name"] == "test_execution"
    assert shown["handler"] == "taskyard.tasks.handlers.test_execution"
    assert fields["time_limit_s"] == {"value": 90.0, "origin": "own.yaml"}
    assert fields["max_retries"] == {"value": 4, "origin": "own.yaml"}
    assert fields["base_delay_ms"] == {"value": 5000, "origin": "built in"}
    assert fields["waits_ms"] == {"value": [5000, 10000, 15000, 20000], "origin": "computed"}
    assert fields["jitter"] == {"value": True, "origin": "default"}
    assert fields["priority"] == {"value": 3, "origin": "middle of queue exec"}
    assert fields["death_limit"] == {"value": 5, "origin": "TASKYARD_DEATH_LIMIT"}
    assert fields["unique_for_s"] == {"value": 86400, "origin": "default"}
    missing = (
        set(JobType.model_fields) - {"name", "policy"} | set(RetryPolicy.model_fields)
    ) - set(fields)
    assert missing == set()


def test_the_same_as_text(shell: Shell) -> None:
    lines = [
        " ".join(line.split())
        for line in shell.run("types", "show", "send_invoice").out.split("\n")
    ]

    assert "handler none here: a worker on this machine has no handler either" in lines
    assert "queue ops own.yaml" in lines
    assert "priority 4 own.yaml" in lines
    assert "owner billing own.yaml" in lines
    assert "no_retry_errors validation_error, result_invalid, result_too_large default" in lines
    assert "retry_on_errors every code default" in lines
    assert "death_limit 5 TASKYARD_DEATH_LIMIT" in lines


def test_the_list_has_a_line_for_each_type(shell: Shell) -> None:
    lines = [line.split() for line in shell.run("types", "list").out.splitlines()]
    named = {row["name"]: row for row in shell.run("types", "list", "--json").document}

    own = [REPLAY_TASK, "send_invoice"]
    assert sorted(line[0] for line in lines[1:]) == sorted([*Catalogue.load(built_in=True), *own])
    assert [line[-2:] for line in lines if line[0] == "send_invoice"] == [["none", "here"]]
    assert named["test_execution"]["policy"]["max_retries"] == 4


def test_an_unknown_type_is_told_with_the_nearest_one(shell: Shell) -> None:
    ran = shell.run("types", "show", "send_invioce")

    assert ran.code == 2
    assert "there is no job type 'send_invioce'. Did you mean 'send_invoice'?" in ran.err
    assert ran.err.endswith("See: taskyard types list\n")


def test_a_type_that_only_a_decorator_defines_names_its_handler() -> None:
    registry = Registry()

    @registry.job("weigh", queue="ops", policy={"max_retries": 1})
    def weigh(payload: object) -> None: ...

    source = f"decorator of {weigh.__module__}.{weigh.__qualname__}"
    assert by_decorator(registry["weigh"]) == {"queue": source, "policy.max_retries": source}


def test_each_field_of_decorator_and_file_names_its_own_origin(tmp_path: Path) -> None:
    (tmp_path / "shop_jobs.py").write_text(HANDLER)
    (tmp_path / "own.yaml").write_text(OVER_IT)
    folder = tmp_path / "shop-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("[taskyard.jobs]\nshop = shop_jobs\n")
    # No server is there: the payload is refused before one is asked.
    servers = dict.fromkeys(("TASKYARD_REDIS_URL", "TASKYARD_BROKER_URL"), "redis://127.0.0.1:1/0")
    variables = {"TASKYARD_JOB_TYPES": "own.yaml", "PYTHONPATH": str(tmp_path), **servers}
    shell = Shell(tmp_path, variables)

    fields = shell.run("types", "show", "book_order", "--json").document["fields"]

    decorator = "decorator of shop_jobs.book_order"
    assert fields["queue"] == {"value": "plan", "origin": "own.yaml"}
    assert fields["time_limit_s"] == {"value": 30.0, "origin": decorator}
    assert fields["max_retries"] == {"value": 5, "origin": "own.yaml"}
    assert fields["no_retry_errors"] == {"value": ["no_customer"], "origin": decorator}
    assert fields["payload_annotation"] == {
        "value": "shop_jobs:Order",
        "origin": "handler shop_jobs.book_order",
    }
    refused = shell.run("jobs", "enqueue", "book_order", '{"order_no": "1"}')
    assert refused.code == 2
    assert "number: this required field is missing" in refused.err


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        (RetryPolicy(max_retries=2), "up to 1, 2 s"),
        (RetryPolicy(max_retries=9, jitter=False, max_delay_ms=3000), "1, 2, 3, 3, 3 ... s"),
        (RetryPolicy(backoff_strategy="immediate"), "none"),
        (RetryPolicy(max_retries=0), "no retry"),
    ],
)
def test_waits_are_told_for_the_first_retries(policy: RetryPolicy, shown: str) -> None:
    assert waits(policy) == shown
    assert len(waits_ms(policy)) == min(policy.max_retries, 5)


def test_what_is_never_retried_follows_from_both_lists() -> None:
    assert never_retried(RetryPolicy()) == "none"
    assert never_retried(RetryPolicy(no_retry_errors=("a", "b"))) == "a, b"
    assert never_retried(RetryPolicy(retry_on_errors=("a",))) == "all but a"
