"""The ports: which modules ask Celery's pool, and how its reports are read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError

from taskyard.engine.pool_reports import over_time, read_report, unwrapped
from taskyard.engine.ports import NoOutcome, OverTime, Report, Reported, Unanswered
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.records import Decided, Held
from taskyard.runner import JobDeferred, JobRetrying, Unreachable

ROOT = Path(__file__).parents[2]
# What today's pool and consumer have inside, by which the five things were done.
INTERNALS = re.compile(
    r"billiard|\.semaphore|scheduled_requests|reserved_requests|active_requests|terminate_job"
    r"|mark_not_started|note_counted|worker_pid"
)
BEHIND_THE_PORTS = {
    "celery_attempts.py",
    "celery_messages.py",
    "drain_results.py",
    "prefork_pool.py",
    "pool_reports.py",
    "request.py",
}


def test_no_other_module_asks_the_pool_or_the_account_of_what_is_held() -> None:
    folders = [ROOT / "platform/taskyard" / name for name in ("engine", "install")]
    files = [file for folder in folders for file in folder.glob("*.py")]
    asking = {file.name for file in files if INTERNALS.search(_code(file))}
    assert asking == BEHIND_THE_PORTS


def _code(file: Path) -> str:
    """A module's text without docstrings and comments."""
    text = re.sub(r'"""[\s\S]*?"""', "", file.read_text("utf-8"))
    return re.sub(r"#.*", "", text)


def test_the_ports_name_nothing_of_celery_and_kombu() -> None:
    text = (ROOT / "platform/taskyard/engine/ports.py").read_text("utf-8")
    assert not re.search(r"^(from|import) (celery|kombu|billiard)", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("error", "report"),
    [
        (WorkerLostError("signal 9 (SIGKILL)"), NoOutcome("signal 9 (SIGKILL)")),
        (SystemExit(), NoOutcome("SystemExit")),
        (
            ValueError("in Celery"),
            NoOutcome(
                "the process of the job could not report its outcome: ValueError('in Celery')"
            ),
        ),
        (JobRetrying(1, 2, 3, 4, "why"), Reported(Decided(Decision.RETRYING, 1, 2, 3, 4))),
        (JobDeferred(5, "why"), Reported(Held(5))),
        (KeyboardInterrupt(), Reported(None)),
    ],
)
def test_what_a_pool_reports_is_one_of_four_values(error: BaseException, report: Report) -> None:
    assert read_report(error, lambda each: isinstance(each, ValueError), stopped=False) == report


def test_an_attempt_that_no_redis_answered_says_so() -> None:
    error = Unreachable("no answer")
    assert read_report(error, lambda _: True, stopped=False) == Unanswered(error)


def test_a_limit_counts_also_for_what_this_worker_has_stopped() -> None:
    for stopped in (False, True):
        report = read_report(TimeLimitExceeded(9), lambda _: True, stopped=stopped)
        assert report == over_time(9) == OverTime("TimeLimitExceeded(9,)")


@pytest.mark.parametrize("error", [Terminated(-9), WorkerLostError("signal 9"), SystemExit(1)])
def test_a_process_that_ended_because_this_worker_ended_it_is_no_loss(error: BaseException) -> None:
    assert read_report(error, lambda _: True, stopped=True) == Reported(None)
    assert isinstance(read_report(error, lambda _: True, stopped=False), NoOutcome)


def test_an_exception_that_came_with_its_traceback_is_the_exception() -> None:
    error = ValueError("within")
    assert unwrapped(ExceptionWithTraceback(error, "")) is error
    assert unwrapped(error) is error
