"""CSS and XPath paths to an element, more stable ones first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from taskyard.tasks.dom.page import Element, Page
from taskyard.tasks.dom.quoting import css_string, is_css_name, xpath_string

__all__ = ["css_paths", "xpaths"]

_TELLING: Final = ("href", "action", "aria-label", "type", "role", "src", "for")
_MOST_VALUE_CHARS: Final = 120


def css_paths(page: Page, element: Element) -> Iterator[str]:
    """Return CSS paths: by distinctive attributes, by classes, from the nearest id, by position."""
    yield from (f"{element.tag}{condition}" for condition in _conditions(element))
    own = element.tag + "".join(f".{name}" for name in _classes(element))
    if own != element.tag:
        yield own
    anchor = next((each for each in element.iterancestors() if _simple_id(each)), None)
    if anchor is not None:
        yield f"#{anchor.get('id')} {own}"
        yield from (f"#{anchor.get('id')} {element.tag}{each}" for each in _conditions(element))
        yield f"#{anchor.get('id')} > {_steps(page, element, anchor)}"
    yield _steps(page, element, None)


def xpaths(page: Page, element: Element) -> Iterator[str]:
    """Return XPaths: by text, from the nearest id, and last the absolute path."""
    text = page.text(element)
    if text and len(text) <= _MOST_VALUE_CHARS and element.tag not in ("select", "textarea"):
        yield f"//{element.tag}[normalize-space()={xpath_string(text)}]"
    absolute = page.path(element)
    anchor = next((each for each in element.iterancestors() if each.get("id")), None)
    if anchor is not None:
        rest = absolute[len(page.path(anchor)) :]
        yield f"//*[@id={xpath_string(anchor.get('id'))}]{rest}"
    yield absolute


def _conditions(element: Element) -> Iterator[str]:
    for name in _TELLING:
        value = element.get(name)
        if value and len(value) <= _MOST_VALUE_CHARS:
            yield f"[{name}={css_string(value)}]"


def _classes(element: Element) -> list[str]:
    return [name for name in (element.get("class") or "").split() if is_css_name(name)]


def _simple_id(element: Element) -> bool:
    return is_css_name(element.get("id") or "")


def _steps(page: Page, element: Element, anchor: Element | None) -> str:
    chain = [element]
    for above in element.iterancestors():
        if above is anchor:
            break
        chain.append(above)
    return " > ".join(_nth(page, each) for each in reversed(chain))


def _nth(page: Page, element: Element) -> str:
    if element.getparent() is None:
        return str(element.tag)
    return page.step(element).replace("[", ":nth-of-type(").replace("]", ")")
