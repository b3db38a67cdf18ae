"""The report of running a plan."""

from __future__ import annotations

from enum import StrEnum

from taskyard.tasks.models.base import Model

__all__ = ["FlowReport", "Outcome", "Report", "StepReport"]


class Outcome(StrEnum):
    """How a step, a flow or a whole run ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not_run"


class StepReport(Model):
    """One step: `selector` is the alternative that matched, `matches` how many elements it found.

    For a failed step, `tried` lists all alternatives, and `code` and `message` give the cause.
    """

    index: int
    type: str
    line: int | None = None
    text: str = ""
    outcome: Outcome
    elapsed_ms: float = 0.0
    selector: str | None = None
    matches: int | None = None
    tried: tuple[str, ...] = ()
    code: str | None = None
    message: str | None = None


class FlowReport(Model):
    """One flow; the steps after its first failed step are not run."""

    scenario: str
    line: int
    outcome: Outcome
    elapsed_ms: float
    steps: tuple[StepReport, ...]


class Report(Model):
    """The report of a run; the run passed only if every flow passed."""

    base_url: str
    outcome: Outcome
    elapsed_ms: float
    passed: int
    failed: int
    not_run: int
    flows: tuple[FlowReport, ...]
