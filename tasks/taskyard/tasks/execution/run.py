"""Run a whole plan: each flow in its own browser; return a report of every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.errors import CodedError
from taskyard.tasks.execution.driver import Driver
from taskyard.tasks.execution.steps import do_step
from taskyard.tasks.models.flow import Step
from taskyard.tasks.models.plan import Plan, PlannedFlow
from taskyard.tasks.models.report import FlowReport, Outcome, Report, StepReport

__all__ = ["Watch", "raise_on_failure", "run_plan"]

_ENDS_THE_RUN = frozenset({"network_timeout", "browser_crash"})
"""After these errors the site or the browser does not answer, so later flows would fail too."""


class Watch(Protocol):
    """A callable that gets the progress before each step; it ends the run by raising."""

    def __call__(self, done: int, total: int, note: str) -> None:
        """Report that `done` of `total` steps have run; `note` names the next step."""
        ...


class _Run:
    def __init__(self, plan: Plan, open_driver: Callable[[], Driver], watch: Watch, clock: Clock):
        self._plan, self._open_driver, self._watch, self._clock = plan, open_driver, watch, clock
        self._done = 0
        self._total = sum(len(planned.flow.steps) for planned in plan.flows)
        self._over = False

    def report(self) -> Report:
        start_s = self._clock.monotonic_s()
        flows = tuple(self._flow(planned) for planned in self._plan.flows)
        counts = {outcome: sum(flow.outcome is outcome for flow in flows) for outcome in Outcome}
        passed = counts[Outcome.PASSED] == len(flows)
        return Report(
            base_url=self._plan.base_url,
            outcome=Outcome.PASSED if passed else Outcome.FAILED,
            elapsed_ms=self._ms_since(start_s),
            passed=counts[Outcome.PASSED],
            failed=counts[Outcome.FAILED],
            not_run=counts[Outcome.NOT_RUN],
            flows=flows,
        )

    def _flow(self, planned: PlannedFlow) -> FlowReport:
        start_s = self._clock.monotonic_s()
        driver = None if self._over else self._open_driver()
        try:
            steps = self._steps(planned, driver)
        finally:
            if driver is not None:
                driver.close()
        outcomes = {step.outcome for step in steps}
        order = (Outcome.FAILED, Outcome.NOT_RUN, Outcome.PASSED)
        return FlowReport(
            scenario=planned.scenario,
            line=planned.line,
            outcome=next(outcome for outcome in order if outcome in outcomes),
            elapsed_ms=self._ms_since(start_s),
            steps=steps,
        )

    def _steps(self, planned: PlannedFlow, driver: Driver | None) -> tuple[StepReport, ...]:
        reports: list[StepReport] = []
        for index, step in enumerate(planned.flow.steps):
            blank = _blank(planned, index)
            failed = bool(reports) and reports[-1].outcome is not Outcome.PASSED
            if driver is None or failed:
                reports.append(blank)
                continue
            self._watch(self._done, self._total, f"{planned.scenario}: {blank.text or step.type}")
            reports.append(self._step(driver, step, planned, blank))
            self._done += 1
        return tuple(reports)

    def _step(
        self, driver: Driver, step: Step, planned: PlannedFlow, blank: StepReport
    ) -> StepReport:
        start_s = self._clock.monotonic_s()
        try:
            sighting = do_step(driver, step, planned.flow.timeout)
        except CodedError as error:
            self._over = error.code in _ENDS_THE_RUN
            facts: dict[str, object] = {
                "outcome": Outcome.FAILED,
                "code": error.code,
                "message": error.message,
                "tried": error.details.get("selectors", ()),
            }
        else:
            facts = {
                "outcome": Outcome.PASSED,
                "selector": sighting.selector,
                "matches": sighting.matches if sighting.selector else None,
            }
        return blank.model_copy(update={**facts, "elapsed_ms": self._ms_since(start_s)})

    def _ms_since(self, start_s: float) -> float:
        return round((self._clock.monotonic_s() - start_s) * 1000, 3)


def run_plan(
    plan: Plan,
    open_driver: Callable[[], Driver],
    watch: Watch,
    clock: Clock = SYSTEM_CLOCK,
) -> Report:
    """Run every flow.

    A failed flow does not stop the next one, unless the site or the browser does not answer any
    more. `open_driver` opens a new browser for each flow. An error that `watch` raises ends the
    run.
    """
    return _Run(plan, open_driver, watch, clock).report()


def raise_on_failure(report: Report) -> None:
    """Raise CodedError for the first failed step, with the whole report in its details."""
    failures = (
        (flow, step)
        for flow in report.flows
        for step in flow.steps
        if step.outcome is Outcome.FAILED
    )
    flow, step = next(failures, (None, None))
    if flow is None or step is None or step.code is None:
        return
    where = f"line {step.line}" if step.line is not None else f"step {step.index}"
    details: dict[str, object] = {
        "flow": flow.scenario,
        "step": step.index,
        "line": step.line,
        "text": step.text,
        "selectors": list(step.tried),
        "passed": report.passed,
        "failed": report.failed,
        "not_run": report.not_run,
        "report": report.model_dump(mode="json"),
    }
    message = f"{flow.scenario!r}, {where} ({step.text or step.type}): {step.message}"
    raise CodedError(step.code, message, details=details)


def _blank(planned: PlannedFlow, index: int) -> StepReport:
    source = planned.sources[index] if planned.sources else None
    return StepReport(
        index=index,
        type=planned.flow.steps[index].type,
        line=None if source is None else source.line,
        text="" if source is None else source.text,
        outcome=Outcome.NOT_RUN,
    )
