"""Selectors as the Recorder writes them, resolved on a parsed page.

`aria/Name[role="button"]` selects by accessible name and role, `text/...` by shown text;
`xpath/...`, `pierce/...` and plain CSS work too. Parsed HTML has no shadow roots, so a selector
that pierces them is resolved step by step: each step searches inside the elements that the previous
step found.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from lxml import etree
from lxml.cssselect import CSSSelector, SelectorError

from taskyard.errors import CodedError
from taskyard.tasks.dom.aria_roles import role_of
from taskyard.tasks.dom.names import elements_named
from taskyard.tasks.dom.page import Element, Page, squeeze

__all__ = ["resolve"]

_ARIA_TAIL: Final = re.compile(r'\s*\[\s*(role|name)\s*=\s*"([^"]*)"\s*\]\s*$')


def resolve(page: Page, selector: str, within: Element | None = None) -> list[Element]:
    """Return every element that `selector` finds, in document order.

    Raises CodedError `invalid_selector`.
    """
    scope = page.root if within is None else within
    prefix, slash, rest = selector.partition("/")
    finder = _FINDERS.get(prefix) if slash else None
    return _by_css(page, selector, scope) if finder is None else finder(page, rest, scope)


def _by_aria(page: Page, query: str, scope: Element) -> list[Element]:
    wanted: dict[str, str] = {}
    while tail := _ARIA_TAIL.search(query):
        wanted.setdefault(tail[1], tail[2])
        query = query[: tail.start()]
    name, role = squeeze(wanted.get("name", query)), wanted.get("role")
    if not name and role is None:
        raise CodedError("invalid_selector", "expected a name or a role after aria/, got neither")
    pool = elements_named(page, name) if name else page.visible
    return [
        element
        for element in pool
        if (role is None or role_of(element) == role) and _is_within(element, scope, page)
    ]


def _is_within(element: Element, scope: Element, page: Page) -> bool:
    return scope is page.root or scope is element or scope in element.iterancestors()


def _by_text(page: Page, query: str, scope: Element) -> list[Element]:
    """Return the innermost elements whose text contains `query`; upper and lower case differ."""
    wanted, found, waiting = squeeze(query), [], [scope]
    while waiting:
        element = waiting.pop()
        if not isinstance(element.tag, str) or wanted not in page.text(element):
            continue
        inner = [child for child in element if wanted in page.text(child)]
        waiting += reversed(inner)
        if not inner:
            found.append(element)
    return found


def _by_xpath(page: Page, query: str, scope: Element) -> list[Element]:
    return _elements(_compiled_xpath(query)(scope))


def _by_css(page: Page, query: str, scope: Element) -> list[Element]:
    return _elements(_compiled_css(query)(scope))


def _by_pierce(page: Page, query: str, scope: Element) -> list[Element]:
    return _by_css(page, query, scope)


_FINDERS: Final[dict[str, Callable[[Page, str, Element], list[Element]]]] = {
    "aria": _by_aria,
    "text": _by_text,
    "xpath": _by_xpath,
    "pierce": _by_pierce,
}


def _elements(found: object) -> list[Element]:
    if not isinstance(found, list):
        raise CodedError("invalid_selector", f"expected elements, the selector gave {found!r}")
    return [each for each in found if isinstance(each, Element) and isinstance(each.tag, str)]


@lru_cache(maxsize=2048)
def _compiled_xpath(query: str) -> Callable[[Element], object]:
    try:
        evaluate = etree.XPath(query)
    except (etree.XPathError, ValueError) as error:
        raise _invalid(query, "XPath", error) from error

    def run(scope: Element) -> object:
        try:
            return evaluate(scope)
        except etree.XPathError as error:
            raise _invalid(query, "XPath", error) from error

    return run


@lru_cache(maxsize=2048)
def _compiled_css(query: str) -> Callable[[Element], object]:
    try:
        return CSSSelector(query, translator="html")  # type: ignore[no-any-return,unused-ignore]
    except (SelectorError, etree.XPathError, ValueError) as error:
        raise _invalid(query, "CSS", error) from error


def _invalid(query: str, language: str, error: Exception) -> CodedError:
    message = f"expected a selector in {language}, got {query[:200]!r} ({error})"
    return CodedError("invalid_selector", message)
