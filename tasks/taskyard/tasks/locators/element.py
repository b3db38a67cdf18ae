"""The locators of one element: only candidates that find no other element."""

from __future__ import annotations

from typing import Final

from taskyard.errors import CodedError
from taskyard.tasks.dom.names import count_labelled
from taskyard.tasks.dom.page import Element, Page
from taskyard.tasks.dom.selectors import resolve
from taskyard.tasks.locators.candidates import candidates
from taskyard.tasks.models.locators import Locator, LocatorKind

__all__ = ["ENOUGH", "locators_for", "shortfall"]

ENOUGH: Final = 3


def locators_for(
    page: Page, element: Element, most: int, test_id_attribute: str
) -> tuple[Locator, ...]:
    """Return up to `most` locators, best first; each finds `element` and no other."""
    proven: dict[str, Locator] = {}
    for locator in candidates(page, element, test_id_attribute):
        if len(proven) == most:
            break
        if locator.selector not in proven and _meets_only(page, element, locator):
            proven[locator.selector] = locator
    return tuple(proven.values())


def shortfall(found: int) -> str | None:
    """Return why there are too few locators, or None if there are enough."""
    if found >= ENOUGH:
        return None
    return (
        f"{found} of {ENOUGH} locators could be proven unique; every other candidate also "
        "matches another element of the page or none"
    )


def _meets_only(page: Page, element: Element, locator: Locator) -> bool:
    if _is_repeated(page, locator):
        return False
    try:
        found = resolve(page, locator.selector)
    except CodedError:
        return False  # a value that no selector can carry, such as a control character
    if len(found) != 1 or found[0] is not element:
        return False
    return locator.kind is not LocatorKind.LABEL or _labels_only(page, locator)


def _is_repeated(page: Page, locator: Locator) -> bool:
    """Return whether the page has a text twice; this check avoids most searches."""
    text = locator.selector.removeprefix("text/")
    return locator.kind is LocatorKind.TEXT and page.text(page.root).count(text) > 1


def _labels_only(page: Page, locator: Locator) -> bool:
    """Return whether only labels have this text.

    Playwright's getByLabel also counts elements whose name comes from elsewhere.
    """
    text = locator.selector.removeprefix("aria/")
    return count_labelled(page, text) == 1
