"""The interface between a running plan and a browser.

Every method may raise CodedError: `element_not_found` (no alternative finds a visible element),
`element_not_interactable` (the element is disabled or of the wrong kind), `invalid_selector`,
`network_timeout`, `browser_crash`, `unsupported_action` (this driver cannot do the action).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from taskyard.errors import CodedError
from taskyard.tasks.models.flow import Selectors, WaitForElementStep

__all__ = ["Driver", "Sighting", "Wanted", "not_found", "written"]


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a step found: the first alternative that finds elements, and how many elements."""

    selector: str | None
    matches: int
    met: bool = True


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a wait step waits for: how many elements in which state."""

    operator: str
    count: int
    visible: bool | None
    properties: dict[str, str | bool | int | float]
    attributes: dict[str, str]

    @classmethod
    def of(cls, step: WaitForElementStep) -> Wanted:
        """Return what the step asks for, with the Recorder's defaults."""
        return cls(
            operator=step.operator or ">=",
            count=1 if step.count is None else step.count,
            visible=step.visible,
            properties=step.properties or {},
            attributes=step.attributes or {},
        )

    def accepts(self, count: int) -> bool:
        """Return whether this number of elements is the wanted number."""
        match self.operator:
            case ">=":
                return count >= self.count
            case "<=":
                return count <= self.count
            case _:
                return count == self.count


class Driver(Protocol):
    """One browser with one page and its own cookies; after `close` nothing is kept."""

    def open(self, url: str) -> None:
        """Load a page."""
        ...

    def resize(self, width: int, height: int) -> None:
        """Size the window, in CSS pixels."""
        ...

    def click(self, selectors: Selectors, times: int = 1) -> Sighting:
        """Click the first visible element found; if a new page follows, wait for this page."""
        ...

    def hover(self, selectors: Selectors) -> Sighting:
        """Move the pointer over the first visible element found."""
        ...

    def change(self, selectors: Selectors, value: str) -> Sighting:
        """Give a field a value; for a list, the value or the words of an option."""
        ...

    def press(self, key: str) -> None:
        """Press and release a key in the focused element."""
        ...

    def wait(self, selectors: Selectors, wanted: Wanted, timeout_s: float) -> Sighting:
        """Wait until the page shows what is wanted; `met` is False if it did not in time."""
        ...

    def exists(self, selectors: Selectors) -> bool:
        """Return whether any alternative finds an element now."""
        ...

    def text(self) -> str:
        """Return the text that the page shows."""
        ...

    def title(self) -> str:
        """Return the page's title."""
        ...

    def url(self) -> str:
        """Return the page's address; empty before the first page."""
        ...

    def close(self) -> None:
        """Close the browser and free everything that it uses."""
        ...


def written(selectors: Selectors) -> tuple[str, ...]:
    """Return the alternatives as text; `>>>` joins the parts of an alternative that pierces."""
    return tuple(each if isinstance(each, str) else " >>> ".join(each) for each in selectors)


def not_found(selectors: Selectors, url: str) -> CodedError:
    """Return the error for a step whose element was not found."""
    tried = written(selectors)
    message = f"no visible element at {url} matches {tried[0]!r}"
    if len(tried) > 1:
        message += f" or its {len(tried) - 1} alternatives"
    return CodedError("element_not_found", message, details={"selectors": tried, "url": url})
