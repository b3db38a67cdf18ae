"""The possible locators of an element, best first (Playwright's order of preference).

Playwright's guide prefers what a person sees to details of the markup: test ids, roles and names,
labels, placeholders, alternative texts, titles, texts; then CSS and XPath.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from taskyard.tasks.dom.aria_roles import role_of
from taskyard.tasks.dom.names import label_texts, name_of
from taskyard.tasks.dom.page import Element, Page
from taskyard.tasks.dom.quoting import css_string, is_css_name, js_string
from taskyard.tasks.locators.paths import css_paths, xpaths
from taskyard.tasks.models.locators import Locator, LocatorKind

__all__ = ["candidates"]

_MOST_TEXT_CHARS: Final = 80
"""A longer text is prose, which authors often edit, so it makes a bad locator."""


def candidates(page: Page, element: Element, test_id_attribute: str) -> Iterator[Locator]:
    """Return every possible locator; the caller must check that it finds only the element."""
    yield from _test_id(element, test_id_attribute)
    yield from _role(page, element)
    yield from _label(page, element)
    yield from _attribute(element, "placeholder", LocatorKind.PLACEHOLDER, "getByPlaceholder")
    yield from _attribute(element, "alt", LocatorKind.ALT, "getByAltText")
    yield from _attribute(element, "title", LocatorKind.TITLE, "getByTitle")
    yield from _text(page, element)
    yield from _id(element)
    yield from _name_attribute(element)
    yield from (_plain(LocatorKind.CSS, path) for path in css_paths(page, element))
    yield from (_plain(LocatorKind.XPATH, f"xpath/{path}") for path in xpaths(page, element))


def _test_id(element: Element, attribute: str) -> Iterator[Locator]:
    value = element.get(attribute)
    if value:
        yield Locator(
            kind=LocatorKind.TEST_ID,
            selector=f"[{attribute}={css_string(value)}]",
            playwright=f"getByTestId({js_string(value)})",
        )


def _role(page: Page, element: Element) -> Iterator[Locator]:
    role, name = role_of(element), name_of(page, element)
    if role and name:
        yield Locator(
            kind=LocatorKind.ROLE,
            selector=f'aria/{name}[role="{role}"]',
            playwright=f"getByRole({js_string(role)}, {{ name: {js_string(name)}, exact: true }})",
        )


def _label(page: Page, element: Element) -> Iterator[Locator]:
    for text in dict.fromkeys(label_texts(page, element)):
        if text == name_of(page, element):
            yield Locator(
                kind=LocatorKind.LABEL,
                selector=f"aria/{text}",
                playwright=f"getByLabel({js_string(text)}, {{ exact: true }})",
            )


def _attribute(element: Element, attribute: str, kind: LocatorKind, call: str) -> Iterator[Locator]:
    value = element.get(attribute)
    if value and value.strip() == value:
        yield Locator(
            kind=kind,
            selector=f"[{attribute}={css_string(value)}]",
            playwright=f"{call}({js_string(value)}, {{ exact: true }})",
        )


def _text(page: Page, element: Element) -> Iterator[Locator]:
    text = page.text(element)
    if text and len(text) <= _MOST_TEXT_CHARS and element.tag != "select":
        yield Locator(
            kind=LocatorKind.TEXT,
            selector=f"text/{text}",
            playwright=f"getByText({js_string(text)}, {{ exact: true }})",
        )


def _id(element: Element) -> Iterator[Locator]:
    value = element.get("id")
    if value:
        css = f"#{value}" if is_css_name(value) else f"[id={css_string(value)}]"
        yield _plain(LocatorKind.ID, css)


def _name_attribute(element: Element) -> Iterator[Locator]:
    value = element.get("name")
    if not value:
        return
    css = f"{element.tag}[name={css_string(value)}]"
    yield _plain(LocatorKind.NAME, css)
    if element.get("value") and element.get("type") in ("radio", "checkbox"):
        yield _plain(LocatorKind.NAME, f"{css}[value={css_string(element.get('value'))}]")


def _plain(kind: LocatorKind, selector: str) -> Locator:
    query = f"xpath={selector.removeprefix('xpath/')}" if kind is LocatorKind.XPATH else selector
    return Locator(kind=kind, selector=selector, playwright=f"locator({js_string(query)})")
