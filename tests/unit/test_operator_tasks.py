"""An operator task on a worker that cannot carry it out says what it lacks."""

from __future__ import annotations

import sys
from typing import Any, cast

import pytest

from taskyard.errors import CodedError
from taskyard.jobs import JobContext
from taskyard.jobs.handler_registry import registry
from taskyard.ops import operator_tasks
from taskyard.ops.operator_tasks import NOT_CONFIGURED, replay_letter

CONTEXT = cast("JobContext", None)


@pytest.fixture(autouse=True)
def _no_desk() -> None:
    operator_tasks._desk.cache_clear()


def test_a_worker_without_postgres_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TASKYARD_DATABASE_URL", raising=False)
    with pytest.raises(CodedError, match="TASKYARD_DATABASE_URL is not set") as refused:
        replay_letter({}, CONTEXT)
    assert refused.value.code == NOT_CONFIGURED


def test_a_worker_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "taskyard.ops.operator_context", cast("Any", None))
    with pytest.raises(CodedError, match=r"pip install 'taskyard\[ops\]'") as refused:
        replay_letter({}, CONTEXT)
    assert refused.value.code == NOT_CONFIGURED


def test_the_task_is_a_job_type_of_the_pool_ops() -> None:
    job_type = registry["taskyard.ops.replay"].job_type
    assert job_type is not None
    assert job_type.queue == "ops"
