"""The payload and the result of element_healing."""

from __future__ import annotations

from typing import Final

from pydantic import Field, model_validator

from taskyard.tasks.models.base import MAX_HTML_CHARS, Model
from taskyard.tasks.models.fingerprint import Fingerprint
from taskyard.tasks.models.locators import Locator
from taskyard.tasks.models.page import PageRequest

__all__ = ["DEFAULT_GATE", "HealingCandidate", "HealingRequest", "HealingResult"]

DEFAULT_GATE: Final = 0.9
"""Confidence under which a person decides; see `taskyard.tasks.healing.confidence`."""


class HealingRequest(PageRequest):
    """The present page, and the lost element.

    The element is given by its `fingerprint`, or by `known_html` (a page on which the locator still
    worked) with the `selector` that found the element there.
    """

    selector: str = Field(default="", max_length=2_000)
    fingerprint: Fingerprint | None = None
    known_html: str | None = Field(default=None, max_length=MAX_HTML_CHARS)
    gate: float = Field(default=DEFAULT_GATE, gt=0, lt=1)
    budget_s: float = Field(default=10.0, gt=0, le=60)
    test_id_attribute: str = Field(default="data-testid", pattern=r"^[a-z][a-z0-9-]*$")

    @model_validator(mode="after")
    def _one_element(self) -> HealingRequest:
        if (self.fingerprint is None) == (self.known_html is None):
            raise ValueError("expected exactly one of fingerprint and known_html")
        if self.known_html is not None and not self.selector:
            raise ValueError("known_html needs the selector that found the element there")
        return self


class HealingCandidate(Model):
    """An element that may be the lost one; `similarity` and `confidence` are from 0 to 1."""

    xpath: str
    tag: str
    text: str
    similarity: float
    confidence: float


class HealingResult(Model):
    """The element that was found: its new locators, best first, and the next best candidates.

    `margin` is how much more similar it is than the second candidate.
    """

    confidence: float
    similarity: float
    margin: float
    healed: HealingCandidate
    locators: tuple[Locator, ...]
    fingerprint: Fingerprint
    candidates: tuple[HealingCandidate, ...]
