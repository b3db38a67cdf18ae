"""Accessible names, after the W3C's Accessible Name and Description Computation 1.2.

The parts that need style sheets (generated content, layout-dependent spacing) are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from taskyard.tasks.dom.aria_roles import is_editable, role_of
from taskyard.tasks.dom.page import Element, Page, squeeze

__all__ = ["count_labelled", "elements_named", "label_texts", "name_of"]

_NAMED_BY_CONTENT: Final = frozenset(
    {"button", "cell", "checkbox", "columnheader", "gridcell", "heading", "link", "menuitem"}
    | {"menuitemcheckbox", "menuitemradio", "option", "radio", "row", "rowheader", "switch", "tab"}
    | {"tooltip", "treeitem"}
)
_CAPTION_TAGS: Final = {"fieldset": "legend", "figure": "figcaption", "table": "caption"}
_BUTTON_WORDS: Final = {"submit": "Submit", "reset": "Reset", "image": "Submit"}


def name_of(page: Page, element: Element) -> str:
    """Return the element's accessible name with single spaces; empty if it has none."""
    if element not in page.names:
        page.names[element] = squeeze(_name(page, element))
    return page.names[element]


def label_texts(page: Page, element: Element) -> list[str]:
    """Return each text that labels a field: labelledby, aria-label and label elements."""
    texts = [_referenced(page, element), element.get("aria-label") or ""]
    texts += [page.text(label) for label in page.labels.get(element, [])]
    return [squeeze(text) for text in texts if text.strip()]


def elements_named(page: Page, name: str) -> list[Element]:
    """Return every visible element with this accessible name, in document order."""
    if page.named is None:
        page.named = {}
        for element in page.visible:
            page.named.setdefault(name_of(page, element), []).append(element)
    return page.named.get(name, [])


def count_labelled(page: Page, text: str) -> int:
    """Return how many elements have the label `text`, visible or hidden."""
    if page.labelled is None:
        page.labelled = Counter(
            text for element in page.elements for text in set(label_texts(page, element))
        )
    return page.labelled[text]


def _name(page: Page, element: Element) -> str:
    sources = (_referenced, _aria_label, _native, _by_content, _last_resort)
    return next((name for source in sources if (name := source(page, element).strip())), "")


def _referenced(page: Page, element: Element) -> str:
    ids = (element.get("aria-labelledby") or "").split()
    found = [page.by_id[each] for each in ids if each in page.by_id]
    return " ".join(_content(page, each, frozenset({element})) for each in found)


def _aria_label(page: Page, element: Element) -> str:
    return str(element.get("aria-label") or "")


def _native(page: Page, element: Element) -> str:
    kind = (element.get("type") or "").lower()
    if element.tag == "input" and kind in ("button", "submit", "reset"):
        value = element.get("value")
        return str(_BUTTON_WORDS.get(kind, "") if value is None else value)
    labels = page.labels.get(element, [])
    if labels:
        return " ".join(_content(page, label, frozenset({element})) for label in labels)
    if element.tag in ("img", "area") or kind == "image":
        return str(element.get("alt") or "")
    caption = element.find(_CAPTION_TAGS[element.tag]) if element.tag in _CAPTION_TAGS else None
    return "" if caption is None else _content(page, caption, frozenset({element}))


def _by_content(page: Page, element: Element) -> str:
    if role_of(element) not in _NAMED_BY_CONTENT and element.tag != "summary":
        return ""
    return _content(page, element, frozenset())


def _last_resort(page: Page, element: Element) -> str:
    title = element.get("title") or ""
    if title or not is_editable(element):
        return str(title)
    return str(element.get("placeholder") or _BUTTON_WORDS.get(element.get("type") or "", ""))


def _content(page: Page, element: Element, without: frozenset[Element]) -> str:
    """Return the name from the element's content; a field in `without` adds no name."""
    return " ".join(_content_pieces(page, element, without))


def _content_pieces(page: Page, element: Element, without: frozenset[Element]) -> Iterator[str]:
    yield element.text or ""
    for child in element:
        if isinstance(child.tag, str) and child not in without and not _is_silent(page, child):
            own = _own_name(page, child)
            yield own or _content(page, child, without)
        yield child.tail or ""


def _own_name(page: Page, child: Element) -> str:
    if child.get("aria-label"):
        return str(child.get("aria-label"))
    if child.tag == "img":
        return str(child.get("alt") or child.get("title") or "")
    if is_editable(child) and child.tag == "input" and role_of(child) not in ("checkbox", "radio"):
        return str(child.get("value") or "")
    return ""


def _is_silent(page: Page, element: Element) -> bool:
    return page.is_hidden(element) or element.get("aria-hidden") == "true"
