"""The properties of an element, read from its page."""

from __future__ import annotations

from typing import Final

from taskyard.tasks.dom.aria_roles import role_of
from taskyard.tasks.dom.names import name_of
from taskyard.tasks.dom.page import Element, Page
from taskyard.tasks.models.fingerprint import Fingerprint

__all__ = ["fingerprint_of"]

_MOST_TEXT_CHARS: Final = 400
_ENOUGH_NEIGHBOUR_CHARS: Final = 12


def fingerprint_of(page: Page, element: Element, test_id_attribute: str) -> Fingerprint:
    """Return every property in `Fingerprint` except `box`: only a real browser draws the page."""
    role = role_of(element)
    return Fingerprint(
        tag=str(element.tag),
        role=role,
        label=name_of(page, element)[:_MOST_TEXT_CHARS],
        test_id=element.get(test_id_attribute) or "",
        classes=tuple((element.get("class") or "").split()),
        text=_shown(page, element)[:_MOST_TEXT_CHARS],
        neighbour_text=_neighbour_text(page, element)[:_MOST_TEXT_CHARS],
        xpath=page.path(element),
        idxpath=_idxpath(page, element),
        is_button=role == "button",
        value=element.get("value") or "" if element.tag == "input" else "",
        id=element.get("id") or "",
        name=element.get("name") or "",
        type=element.get("type") or "",
        href=element.get("href") or "",
        alt=element.get("alt") or "",
        title=element.get("title") or "",
        placeholder=element.get("placeholder") or "",
    )


def _shown(page: Page, element: Element) -> str:
    return name_of(page, element) if element.tag == "input" else page.text(element)


def _neighbour_text(page: Page, element: Element) -> str:
    """Return the text near the element.

    This is the text of the nearest ancestor that shows more than the element, without the element's
    own text.
    """
    own = page.text(element)
    for above in element.iterancestors():
        text = page.text(above)
        before, _, after = text.partition(own) if own else (text, "", "")
        around = f"{before.strip()} {after.strip()}".strip()
        if len(around) >= _ENOUGH_NEIGHBOUR_CHARS:
            return around
    return ""


def _idxpath(page: Page, element: Element) -> str:
    absolute = page.path(element)
    for each in (element, *element.iterancestors()):
        if each.get("id"):
            return f'//*[@id="{each.get("id")}"]' + absolute[len(page.path(each)) :]
    return absolute
