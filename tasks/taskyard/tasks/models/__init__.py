"""Payloads and results of the built-in job types; pydantic and the standard library only."""

from taskyard.tasks.models.fingerprint import Box, Fingerprint
from taskyard.tasks.models.flow import Step, UserFlow
from taskyard.tasks.models.healing import HealingCandidate, HealingRequest, HealingResult
from taskyard.tasks.models.locators import (
    ElementLocators,
    ElementRequest,
    LeftOut,
    Locator,
    LocatorBatch,
    LocatorBatchRequest,
    LocatorKind,
)
from taskyard.tasks.models.plan import Plan, PlannedFlow, PlanRequest, StepSource
from taskyard.tasks.models.report import FlowReport, Outcome, Report, StepReport

__all__ = [
    "Box",
    "ElementLocators",
    "ElementRequest",
    "Fingerprint",
    "FlowReport",
    "HealingCandidate",
    "HealingRequest",
    "HealingResult",
    "LeftOut",
    "Locator",
    "LocatorBatch",
    "LocatorBatchRequest",
    "LocatorKind",
    "Outcome",
    "Plan",
    "PlanRequest",
    "PlannedFlow",
    "Report",
    "Step",
    "StepReport",
    "StepSource",
    "UserFlow",
]
