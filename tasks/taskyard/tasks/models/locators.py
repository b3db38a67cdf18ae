"""What batch_locator_generation takes and gives."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from taskyard.tasks.models.base import Model
from taskyard.tasks.models.fingerprint import Fingerprint
from taskyard.tasks.models.page import PageRequest

__all__ = [
    "ElementLocators",
    "ElementRequest",
    "LeftOut",
    "Locator",
    "LocatorBatch",
    "LocatorBatchRequest",
    "LocatorKind",
]


class LocatorKind(StrEnum):
    """The ways to name an element, in the order Playwright recommends them."""

    TEST_ID = "test_id"
    ROLE = "role"
    LABEL = "label"
    PLACEHOLDER = "placeholder"
    ALT = "alt"
    TITLE = "title"
    TEXT = "text"
    ID = "id"
    NAME = "name"
    CSS = "css"
    XPATH = "xpath"


class ElementRequest(Model):
    """One element, by any selector that meets it alone; `key` is the caller's name for it."""

    key: str
    selector: str = Field(min_length=1, max_length=2_000)


class LocatorBatchRequest(PageRequest):
    """A page and the elements wanted; None for every interactive element of the page.

    `budget_s` ends the batch early: what there was no time for is listed, never dropped silently.
    """

    elements: tuple[ElementRequest, ...] | None = None
    most: int = Field(default=5, ge=3, le=5)
    budget_s: float = Field(default=4.0, gt=0, le=60)
    test_id_attribute: str = Field(default="data-testid", pattern=r"^[a-z][a-z0-9-]*$")


class Locator(Model):
    """One way to find an element: `selector` as the Recorder writes it, and Playwright's call."""

    kind: LocatorKind
    selector: str
    playwright: str


class ElementLocators(Model):
    """An element's locators, best first, each of which meets it and nothing else on the page.

    `shortfall` says why there are fewer than three, else None. `fingerprint` is what
    element_healing wants when a later version of the page has broken the locators.
    """

    key: str
    locators: tuple[Locator, ...]
    shortfall: str | None = None
    fingerprint: Fingerprint


class LeftOut(Model):
    """An element that got no locators, and why."""

    key: str
    reason: str


class LocatorBatch(Model):
    """The whole batch; `elements` and `left_out` together are all that was asked for."""

    elements: tuple[ElementLocators, ...]
    left_out: tuple[LeftOut, ...]
    elapsed_ms: float
