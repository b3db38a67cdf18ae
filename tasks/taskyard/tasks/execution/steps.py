"""Do one step of a flow with a driver."""

from __future__ import annotations

import json
import re
from typing import Final, assert_never
from urllib.parse import urlsplit

from taskyard.errors import CodedError
from taskyard.tasks.execution.driver import Driver, Sighting, Wanted, written
from taskyard.tasks.models import flow as recorder
from taskyard.tasks.models.flow import Step

__all__ = ["do_step"]

_DEFAULT_TIMEOUT_S: Final = 5.0
_EXPRESSION: Final = re.compile(r'(location\.pathname|document\.title) === (".*")')
_NOTHING: Final = Sighting(None, 0)


def do_step(driver: Driver, step: Step, flow_timeout_ms: int | None) -> Sighting:
    """Do the step, then check the navigation that the step asserts.

    Raises CodedError if the step or the check fails.
    """
    timeout_ms = step.timeout or flow_timeout_ms
    timeout_s = _DEFAULT_TIMEOUT_S if timeout_ms is None else timeout_ms / 1000
    sighting = _act(driver, step, timeout_s)
    for event in step.assertedEvents or ():
        _check_navigation(driver, event)
    return sighting


def _act(driver: Driver, step: Step, timeout_s: float) -> Sighting:  # noqa: C901 - one arm a step
    match step:
        case recorder.SetViewportStep():
            driver.resize(step.width, step.height)
        case recorder.NavigateStep():
            driver.open(step.url)
        case recorder.ClickStep():
            return driver.click(step.selectors)
        case recorder.DoubleClickStep():
            return driver.click(step.selectors, times=2)
        case recorder.HoverStep():
            return driver.hover(step.selectors)
        case recorder.ChangeStep():
            return driver.change(step.selectors, step.value)
        case recorder.KeyDownStep():
            driver.press(step.key)
        case recorder.WaitForElementStep():
            return _wait(driver, step, timeout_s)
        case recorder.WaitForExpressionStep():
            _check_expression(driver, step.expression)
        case recorder.ScrollStep() | recorder.KeyUpStep() | recorder.CloseStep():
            pass  # elements are scrolled to where needed, and keys are let go where pressed
        case _:
            assert_never(step)
    return _NOTHING


def _wait(driver: Driver, step: recorder.WaitForElementStep, timeout_s: float) -> Sighting:
    wanted = Wanted.of(step)
    sighting = driver.wait(step.selectors, wanted, timeout_s)
    if sighting.met:
        return sighting
    state = {**wanted.properties, **wanted.attributes}
    message = (
        f"expected {wanted.operator} {wanted.count} of {written(step.selectors)[0]!r}"
        f"{f' with {state}' if state else ''} at {driver.url()}, found {sighting.matches}"
    )
    details: dict[str, object] = {
        "selectors": written(step.selectors),
        "expected": f"{wanted.operator} {wanted.count}",
        "found": sighting.matches,
        "url": driver.url(),
    }
    raise CodedError("assertion_failure", message, details=details)


def _check_expression(driver: Driver, expression: str) -> None:
    parsed = _EXPRESSION.fullmatch(expression)
    if parsed is None:
        message = (
            f"expected 'location.pathname === \"...\"' or 'document.title === \"...\"', "
            f"got {expression!r}; other expressions need a driver that runs scripts"
        )
        raise CodedError("unsupported_action", message)
    is_path = parsed[1] == "location.pathname"
    found = (urlsplit(driver.url()).path or "/") if is_path else driver.title()
    _expect(parsed[1], json.loads(parsed[2]), found, driver.url())


def _check_navigation(driver: Driver, event: recorder.AssertedNavigation) -> None:
    if event.url:
        _expect("location.href", event.url, driver.url(), driver.url())
    if event.title:
        _expect("document.title", event.title, driver.title(), driver.url())


def _expect(what: str, expected: str, found: str, url: str) -> None:
    if expected != found:
        message = f"expected {what} to be {expected!r} at {url}, found {found!r}"
        details: dict[str, object] = {"expected": expected, "found": found, "url": url}
        raise CodedError("assertion_failure", message, details=details)
