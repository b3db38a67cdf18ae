"""Whether workers that are up know the job types: said only as far as they have answered."""

from __future__ import annotations

import pytest

from taskyard.ops.cli.checks.finding import Level
from taskyard.ops.cli.checks.unserved_queues import judge_types

TYPES = ("plan", "paint")


@pytest.mark.parametrize("listening", [2, None])
def test_types_that_some_worker_knows_are_known(listening: int | None) -> None:
    answers = {"a": ["plan", "celery.chord"], "b": ["paint [rate_limit=10/m]"]}
    finding = judge_types(TYPES, answers, listening)
    assert finding.level is Level.OK
    assert finding.detail == "know every job type (2 workers answered)"


@pytest.mark.parametrize("listening", [1, None])
def test_a_type_that_no_answer_names_is_told(listening: int | None) -> None:
    finding = judge_types(TYPES, {"a": ["plan"]}, listening)
    assert finding.level is Level.WARNING
    assert finding.detail == (
        "of 1 worker that answered none knows paint: such jobs become dead letters"
    )


def test_while_a_worker_has_not_answered_it_is_unknown() -> None:
    finding = judge_types(TYPES, {"a": ["plan"]}, 2)
    assert finding.level is Level.WARNING
    assert finding.detail == (
        "it is unknown whether they know the job types: 1 worker of 2 answered, and none of them "
        "knows paint"
    )


def test_without_any_answer_it_is_unknown() -> None:
    finding = judge_types(TYPES, {}, 1)
    assert finding.detail == (
        "it is unknown whether they know the job types: no worker answered within a second"
    )
