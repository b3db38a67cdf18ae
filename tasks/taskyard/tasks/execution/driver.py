"""What running a plan asks of a browser, and how a browser says that it cannot.

Every method may raise CodedError: `element_not_found` (no alternative met an element that can be
seen), `element_not_interactable` (met, but disabled or of the wrong kind), `invalid_selector`,
`network_timeout`, `browser_crash`, `unsupported_action` (this driver cannot do that at all).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from taskyard.errors import CodedError
from taskyard.tasks.models.flow import Selectors, WaitForElementStep

__all__ = ["Driver", "Sighting", "Wanted", "not_found", "written"]


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a step met: the alternative that met it, and how many elements that one meets."""

    selector: str | None
    matches: int
    met: bool = True


@dataclass(frozen=True, slots=True)
class Wanted:
    """How many elements of which state a wait holds out for."""

    operator: str
    count: int
    visible: bool | None
    properties: dict[str, str | bool | int | float]
    attributes: dict[str, str]

    @classmethod
    def of(cls, step: WaitForElementStep) -> Wanted:
        """What the step asks for, the Recorder's defaults filled in."""
        return cls(
            operator=step.operator or ">=",
            count=1 if step.count is None else step.count,
            visible=step.visible,
            properties=step.properties or {},
            attributes=step.attributes or {},
        )

    def accepts(self, count: int) -> bool:
        """Whether so many elements are the number wanted."""
        match self.operator:
            case ">=":
                return count >= self.count
            case "<=":
                return count <= self.count
            case _:
                return count == self.count


class Driver(Protocol):
    """One browser with one page, cookies of its own, and nothing kept after `close`."""

    def open(self, url: str) -> None:
        """Load a page."""
        ...

    def resize(self, width: int, height: int) -> None:
        """Size the window, in CSS pixels."""
        ...

    def click(self, selectors: Selectors, times: int = 1) -> Sighting:
        """Click the first visible element met, and wait for the page that follows, if one does."""
        ...

    def hover(self, selectors: Selectors) -> Sighting:
        """Move the pointer over the first visible element met."""
        ...

    def change(self, selectors: Selectors, value: str) -> Sighting:
        """Give a field a value; for a list, the value or the words of an option."""
        ...

    def press(self, key: str) -> None:
        """Press and release a key where the focus is."""
        ...

    def wait(self, selectors: Selectors, wanted: Wanted, timeout_s: float) -> Sighting:
        """Hold until the page shows what is wanted; `met` is False if it did not in time."""
        ...

    def exists(self, selectors: Selectors) -> bool:
        """Whether any alternative meets an element now."""
        ...

    def text(self) -> str:
        """What the page shows."""
        ...

    def title(self) -> str:
        """The page's title."""
        ...

    def url(self) -> str:
        """The page's address; the empty string before the first page."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


def written(selectors: Selectors) -> tuple[str, ...]:
    """The alternatives as text, the parts of a piercing one joined by `>>>`."""
    return tuple(each if isinstance(each, str) else " >>> ".join(each) for each in selectors)


def not_found(selectors: Selectors, url: str) -> CodedError:
    """The error for a step whose element is not there."""
    tried = written(selectors)
    message = f"no visible element at {url} is met by {tried[0]!r}"
    if len(tried) > 1:
        message += f" or its {len(tried) - 1} alternatives"
    return CodedError("element_not_found", message, details={"selectors": tried, "url": url})
