"""The handlers of the four built-in job types."""

from __future__ import annotations

from taskyard.clock import SYSTEM_CLOCK
from taskyard.errors import CodedError
from taskyard.jobs import JobContext, job
from taskyard.tasks.dom.fetch import DEFAULT_TIMEOUT_S, fetch_html
from taskyard.tasks.execution.browserless_driver import BrowserlessDriver
from taskyard.tasks.execution.run import raise_on_failure, run_plan
from taskyard.tasks.healing.heal import heal
from taskyard.tasks.locators.batch import make_batch
from taskyard.tasks.models.healing import HealingRequest, HealingResult
from taskyard.tasks.models.locators import LocatorBatch, LocatorBatchRequest
from taskyard.tasks.models.page import PageRequest
from taskyard.tasks.models.plan import Plan, PlanRequest
from taskyard.tasks.models.report import Report
from taskyard.tasks.planning.compile import make_plan

__all__ = ["batch_locator_generation", "element_healing", "plan_generation", "test_execution"]


@job("plan_generation")
def plan_generation(payload: PlanRequest, context: JobContext) -> Plan:
    """Make a plan for each scenario of a feature; the result is the payload of test_execution."""

    def before_each(done: int, total: int) -> None:
        go_on(context)
        context.progress(done / total, f"scenario {done + 1} of {total}")

    return make_plan(payload, before_each)


@job("test_execution")
def test_execution(payload: Plan, context: JobContext) -> Report:
    """Run a plan.

    Returns the report if every flow passed; otherwise raises the CodedError of the first failure.
    """

    def before_each(done: int, total: int, note: str) -> None:
        go_on(context)
        context.progress(done / total, note)

    report = run_plan(payload, BrowserlessDriver, before_each)
    raise_on_failure(report)
    return report


@job("batch_locator_generation")
def batch_locator_generation(payload: LocatorBatchRequest, context: JobContext) -> LocatorBatch:
    """Make three to five locators for each element, within the batch's time budget."""
    started_s = SYSTEM_CLOCK.monotonic_s()

    def before_each(done: int, total: int) -> None:
        go_on(context)
        if done % 25 == 0:
            context.progress(done / total, f"element {done + 1} of {total}")

    html = _html(payload, payload.budget_s)
    return make_batch(html, payload, started_s=started_s, watch=before_each)


@job("element_healing")
def element_healing(payload: HealingRequest, context: JobContext) -> HealingResult:
    """Find the lost element on the present page.

    If the confidence is too low, a person must decide.
    """
    started_s = SYSTEM_CLOCK.monotonic_s()
    go_on(context)
    return heal(_html(payload, payload.budget_s), payload, started_s=started_s)


def go_on(context: JobContext) -> None:
    """Raise CodedError `cancelled` or `timeout` if the attempt must not continue."""
    if context.cancelled:
        raise CodedError(
            "cancelled", f"job {context.job_id} was asked to stop by an operator, or lost its lease"
        )
    if context.deadline is not None and SYSTEM_CLOCK.now() >= context.deadline:
        raise CodedError("timeout", f"job {context.job_id} is past its deadline")


def _html(request: PageRequest, budget_s: float) -> str:
    if request.html is not None:
        return request.html
    return fetch_html(str(request.url), min(budget_s, DEFAULT_TIMEOUT_S))
