"""The payload of plan_generation, and its result: a plan, the payload of test_execution."""

from __future__ import annotations

from typing import Final

from pydantic import Field, model_validator

from taskyard.tasks.models.base import HttpUrl, Model
from taskyard.tasks.models.flow import UserFlow

__all__ = ["MAX_FEATURE_CHARS", "Plan", "PlanRequest", "PlannedFlow", "StepSource"]

MAX_FEATURE_CHARS: Final = 200_000


class PlanRequest(Model):
    """A feature file and the site that it describes.

    `file` only appears in errors and reports. Scenarios are kept if they have every tag of
    `with_tags` and none of `without_tags`; tags start with @. `test_id_attribute` is the attribute
    with the site's test ids.
    """

    feature: str = Field(max_length=MAX_FEATURE_CHARS)
    base_url: HttpUrl
    file: str = "feature"
    with_tags: tuple[str, ...] = ()
    without_tags: tuple[str, ...] = ()
    viewport_width: int = Field(default=1280, gt=0)
    viewport_height: int = Field(default=800, gt=0)
    test_id_attribute: str = Field(default="data-testid", pattern=r"^[a-z][a-z0-9-]*$")


class StepSource(Model):
    """The origin of a step: the line of the feature file (from 1), and the words of the line."""

    line: int
    text: str


class PlannedFlow(Model):
    """One scenario: its flow, and the source of each step of the flow in the same order.

    `sources` may be empty, for a flow that was recorded rather than planned.
    """

    scenario: str
    line: int = 0
    tags: tuple[str, ...] = ()
    flow: UserFlow
    sources: tuple[StepSource, ...] = ()

    @model_validator(mode="after")
    def _one_source_a_step(self) -> PlannedFlow:
        if self.sources and len(self.sources) != len(self.flow.steps):
            raise ValueError(
                f"expected one source for each of {len(self.flow.steps)} steps or none at all, "
                f"got {len(self.sources)}"
            )
        return self


class Plan(Model):
    """Flows to run against one site, in order."""

    base_url: HttpUrl
    feature: str = ""
    file: str = "feature"
    flows: tuple[PlannedFlow, ...] = Field(min_length=1)
