"""The payload and the result of batch_locator_generation."""

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
    """The kinds of locators, in the order in which Playwright recommends them."""

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
    """One element, named by any selector that finds only it; `key` is the caller's name for it."""

    key: str
    selector: str = Field(min_length=1, max_length=2_000)


class LocatorBatchRequest(PageRequest):
    """A page and the wanted elements; None means every interactive element of the page.

    `budget_s` ends the batch early: elements for which there was no time are listed as left out.
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
    """An element's locators, best first; each finds this element and no other on the page.

    `shortfall` says why there are fewer than three locators, else None. When a later version of the
    page breaks the locators, give `fingerprint` to element_healing.
    """

    key: str
    locators: tuple[Locator, ...]
    shortfall: str | None = None
    fingerprint: Fingerprint


class LeftOut(Model):
    """An element without locators, and the reason."""

    key: str
    reason: str


class LocatorBatch(Model):
    """The result for the whole batch; each requested element is in `elements` or in `left_out`."""

    elements: tuple[ElementLocators, ...]
    left_out: tuple[LeftOut, ...]
    elapsed_ms: float
