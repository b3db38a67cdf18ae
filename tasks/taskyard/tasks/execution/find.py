"""Finding a step's elements on a parsed page."""

from __future__ import annotations

from collections.abc import Iterator

from taskyard.tasks.dom.page import Element, Page
from taskyard.tasks.dom.selectors import resolve
from taskyard.tasks.execution.driver import Wanted, written
from taskyard.tasks.models.flow import Selectors

__all__ = ["fulfilling", "matches", "value_of"]


def matches(page: Page, selectors: Selectors) -> Iterator[tuple[str, list[Element]]]:
    """Each alternative that meets something, with all it meets, best first."""
    for alternative, label in zip(selectors, written(selectors), strict=True):
        chain = (alternative,) if isinstance(alternative, str) else alternative
        found = resolve(page, chain[0])
        for selector in chain[1:]:
            found = [inner for each in found for inner in resolve(page, selector, each)]
        if found:
            yield label, found


def fulfilling(page: Page, wanted: Wanted, found: list[Element]) -> list[Element]:
    """Those of the elements that are in the state wanted."""
    return [element for element in found if _fulfils(page, wanted, element)]


def _fulfils(page: Page, wanted: Wanted, element: Element) -> bool:
    if wanted.visible is not None and page.is_hidden(element) is wanted.visible:
        return False
    if any(element.get(name) != value for name, value in wanted.attributes.items()):
        return False
    return all(_property(page, element, name) == v for name, v in wanted.properties.items())


def _property(page: Page, element: Element, name: str) -> object:
    if name in ("checked", "disabled", "readOnly", "required", "selected", "multiple"):
        return element.get(name.lower()) is not None
    if name == "value":
        return value_of(element)
    if name in ("textContent", "innerText"):
        return page.text(element)
    return element.get({"className": "class", "htmlFor": "for"}.get(name, name))


def value_of(element: Element) -> str:
    """The value that a form would send for the element."""
    if element.tag == "textarea":
        return str(element.text or "")
    if element.tag != "select":
        return str(element.get("value") or "")
    options = list(element.iter("option"))
    chosen = [option for option in options if option.get("selected") is not None] or options[:1]
    return str(chosen[-1].get("value", " ".join(chosen[-1].itertext()).strip())) if chosen else ""
