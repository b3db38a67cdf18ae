"""Locators for a batch of elements on one page, within a time budget."""

from __future__ import annotations

from collections.abc import Callable

from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.errors import CodedError
from taskyard.tasks.dom.aria_roles import is_interactive
from taskyard.tasks.dom.fingerprint import fingerprint_of
from taskyard.tasks.dom.page import Element, Page
from taskyard.tasks.dom.selectors import resolve
from taskyard.tasks.locators.element import locators_for, shortfall
from taskyard.tasks.models.locators import (
    ElementLocators,
    LeftOut,
    LocatorBatch,
    LocatorBatchRequest,
)

__all__ = ["make_batch"]


def make_batch(
    html: str,
    request: LocatorBatchRequest,
    *,
    started_s: float,
    clock: Clock = SYSTEM_CLOCK,
    watch: Callable[[int, int], None] | None = None,
) -> LocatorBatch:
    """Return locators for each requested element, or the reason why it got none.

    The budget runs from `started_s` on the clock's monotonic time, so the time for fetching the
    page counts too. `watch` is called before each element with the number of finished elements and
    of all.
    """
    page = Page.parse(html)
    wanted, left_out = _wanted(page, request)
    done: list[ElementLocators] = []
    for number, (key, element) in enumerate(wanted):
        if clock.monotonic_s() - started_s >= request.budget_s:
            reason = f"no time: {request.budget_s:g} s were over after {number} of {len(wanted)}"
            left_out += [LeftOut(key=late, reason=reason) for late, _ in wanted[number:]]
            break
        if watch is not None:
            watch(number, len(wanted))
        done.append(_locators(page, key, element, request))
    elapsed_ms = round((clock.monotonic_s() - started_s) * 1000, 3)
    return LocatorBatch(elements=tuple(done), left_out=tuple(left_out), elapsed_ms=elapsed_ms)


def _wanted(
    page: Page, request: LocatorBatchRequest
) -> tuple[list[tuple[str, Element]], list[LeftOut]]:
    if request.elements is None:
        seen = (each for each in page.visible if is_interactive(each))
        return [(page.path(each), each) for each in seen], []
    found, left_out = [], []
    for asked in request.elements:
        element, reason = _find(page, asked.selector)
        if element is None:
            left_out.append(LeftOut(key=asked.key, reason=reason))
        else:
            found.append((asked.key, element))
    return found, left_out


def _find(page: Page, selector: str) -> tuple[Element | None, str]:
    try:
        found = resolve(page, selector)
    except CodedError as error:
        return None, error.message
    if len(found) == 1:
        return found[0], ""
    return None, f"expected {selector!r} to match exactly one element, it matches {len(found)}"


def _locators(
    page: Page, key: str, element: Element, request: LocatorBatchRequest
) -> ElementLocators:
    locators = locators_for(page, element, request.most, request.test_id_attribute)
    return ElementLocators(
        key=key,
        locators=locators,
        shortfall=shortfall(len(locators)),
        fingerprint=fingerprint_of(page, element, request.test_id_attribute),
    )
