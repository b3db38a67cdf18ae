"""The parts of the Chrome DevTools Recorder's UserFlow that a plan uses.

Field names are the Recorder's own (camelCase), so a flow dumped to JSON can be imported there and
an exported recording can be run here. Schema: the `@puppeteer/replay` package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, model_serializer

from taskyard.tasks.models.base import HttpUrl, Model

__all__ = [
    "AssertedNavigation",
    "ChangeStep",
    "ClickStep",
    "CloseStep",
    "DoubleClickStep",
    "HoverStep",
    "KeyDownStep",
    "KeyUpStep",
    "NavigateStep",
    "ScrollStep",
    "Selectors",
    "SetViewportStep",
    "Step",
    "UserFlow",
    "WaitForElementStep",
    "WaitForExpressionStep",
]

Selectors = tuple[str | tuple[str, ...], ...]
"""Alternatives, best first; one that is a sequence pierces shadow roots from left to right."""

_Selectors = Annotated[Selectors, Field(min_length=1)]


class _Sparse(Model):
    """A model that leaves out fields that are None: the Recorder refuses null in them."""

    @model_serializer(mode="wrap")
    def _without_none(self, dump: Callable[[object], dict[str, object]]) -> dict[str, object]:
        return {key: value for key, value in dump(self).items() if value is not None}


class AssertedNavigation(_Sparse):
    """A page load that a step must cause; `url` is where it must end, if given."""

    type: Literal["navigation"] = "navigation"
    url: str | None = None
    title: str | None = None


class _Step(_Sparse):
    """One step; `timeout` in ms, 1 to 30,000; None means the timeout of the flow."""

    timeout: int | None = Field(default=None, ge=1, le=30_000)
    assertedEvents: tuple[AssertedNavigation, ...] | None = None  # noqa: N815 - the Recorder's


class _PageStep(_Step):
    target: str = "main"
    frame: tuple[int, ...] | None = None


class _ElementStep(_PageStep):
    selectors: _Selectors


class _PointerStep(_ElementStep):
    """Offsets are CSS pixels from the element's top left corner."""

    offsetX: float = 1  # noqa: N815 - the Recorder's
    offsetY: float = 1  # noqa: N815 - the Recorder's
    duration: float | None = None
    deviceType: Literal["mouse", "pen", "touch"] | None = None  # noqa: N815 - the Recorder's
    button: Literal["primary", "auxiliary", "secondary", "back", "forward"] | None = None


class SetViewportStep(_PageStep):
    """Sizes the window, in CSS pixels."""

    type: Literal["setViewport"] = "setViewport"
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    deviceScaleFactor: float = 1  # noqa: N815 - the Recorder's
    isMobile: bool = False  # noqa: N815 - the Recorder's
    hasTouch: bool = False  # noqa: N815 - the Recorder's
    isLandscape: bool = False  # noqa: N815 - the Recorder's


class NavigateStep(_PageStep):
    """Loads a URL."""

    type: Literal["navigate"] = "navigate"
    url: HttpUrl


class ClickStep(_PointerStep):
    """Clicks an element."""

    type: Literal["click"] = "click"


class DoubleClickStep(_PointerStep):
    """Clicks an element twice."""

    type: Literal["doubleClick"] = "doubleClick"


class ChangeStep(_ElementStep):
    """Sets a field's value."""

    type: Literal["change"] = "change"
    value: str


class HoverStep(_ElementStep):
    """Moves the pointer over an element."""

    type: Literal["hover"] = "hover"


class ScrollStep(_PageStep):
    """Scrolls the page, or an element where selectors are given."""

    type: Literal["scroll"] = "scroll"
    selectors: Selectors | None = None
    x: float | None = None
    y: float | None = None


class KeyDownStep(_PageStep):
    """Presses a key; names are those of the web's `KeyboardEvent.key`."""

    type: Literal["keyDown"] = "keyDown"
    key: str


class KeyUpStep(_PageStep):
    """Releases a key."""

    type: Literal["keyUp"] = "keyUp"
    key: str


class WaitForElementStep(_ElementStep):
    """Waits until as many elements match as `operator` and `count` say; by default one or more."""

    type: Literal["waitForElement"] = "waitForElement"
    operator: Literal[">=", "==", "<="] | None = None
    count: int | None = Field(default=None, ge=0)
    visible: bool | None = None
    properties: dict[str, str | bool | int | float] | None = None
    attributes: dict[str, str] | None = None


class WaitForExpressionStep(_PageStep):
    """Waits until a script expression is true; drivers without scripts know only some of them."""

    type: Literal["waitForExpression"] = "waitForExpression"
    expression: str


class CloseStep(_PageStep):
    """Closes the page."""

    type: Literal["close"] = "close"


Step = Annotated[
    SetViewportStep
    | NavigateStep
    | ClickStep
    | DoubleClickStep
    | ChangeStep
    | HoverStep
    | ScrollStep
    | KeyDownStep
    | KeyUpStep
    | WaitForElementStep
    | WaitForExpressionStep
    | CloseStep,
    Field(discriminator="type"),
]


class UserFlow(_Sparse):
    """One recording.

    `timeout` in ms applies to every step without its own; `selectorAttribute` is the attribute with
    test ids.
    """

    title: str
    steps: tuple[Step, ...] = Field(min_length=1)
    timeout: int | None = Field(default=None, ge=1, le=30_000)
    selectorAttribute: str | None = None  # noqa: N815 - the Recorder's
