"""Change pages as sites change them, by a seed, and record where each element moved.

Ids and test ids are renamed (with all references), classes changed, wrappers added, siblings moved,
words of texts replaced, attributes dropped. Forms continue to work: no field's name changes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lxml import html as lxml_html

from taskyard.tasks.dom.page import Element, Page

__all__ = ["VERSIONS", "Mutation", "mutate"]

VERSIONS: Final = 10
"""How many seeds the demonstration and the tests use: 0 to 9."""

_REFERRING: Final = ("for", "aria-labelledby", "aria-describedby", "form", "list")
_DROPPABLE: Final = ("data-testid", "title", "placeholder", "class", "autocomplete", "id")
_OTHER_WORDS: Final = {
    "Add": "Put",
    "Browse": "See",
    "Catalogue": "Products",
    "Checkout": "Check out",
    "Email": "E-mail address",
    "Full name": "Your full name",
    "Keep shopping": "Continue shopping",
    "Place order": "Order now",
    "Quantity": "How many",
    "Remove": "Take out",
    "Search": "Find",
    "Sign in": "Log in",
    "Subscribe": "Join",
}
_SHARE: Final = {"rename": 0.5, "class": 0.4, "wrap": 0.15, "move": 0.2, "text": 0.3, "drop": 0.2}


@dataclass(frozen=True, slots=True)
class Mutation:
    """A changed page; `moved` gives the new absolute XPath of each old one."""

    html: str
    moved: dict[str, str]


def mutate(text: str, seed: int) -> Mutation:
    """Return the page `text` as version `seed` of the site would have it; the same each time."""
    chance = random.Random(seed)  # noqa: S311 - a repeatable choice, not a secret
    page = Page.parse(text)
    body = page.root.find("body")
    before = {element: page.path(element) for element in body.iter("*")}
    for change in _CHANGES:
        change(list(body.iter("*")), chance)
    after = Page(page.root)
    moved = {path: after.path(element) for element, path in before.items()}
    return Mutation(
        lxml_html.tostring(page.root, encoding="unicode", doctype="<!doctype html>"), moved
    )


def _pick(elements: list[Element], chance: random.Random, kind: str) -> list[Element]:
    return [element for element in elements if chance.random() < _SHARE[kind]]


def _rename_ids(elements: list[Element], chance: random.Random) -> None:
    suffix = chance.choice(("-new", "-2", "-v3", "_box"))
    for element in _pick([each for each in elements if each.get("id")], chance, "rename"):
        old = element.get("id")
        element.set("id", old + suffix)
        for other in elements:
            for name in _REFERRING:
                if other.get(name) == old:
                    other.set(name, old + suffix)


def _rename_test_ids(elements: list[Element], chance: random.Random) -> None:
    marked = [element for element in elements if element.get("data-testid")]
    for element in _pick(marked, chance, "rename"):
        element.set("data-testid", f"{element.get('data-testid')}-{chance.randrange(100)}")


def _change_classes(elements: list[Element], chance: random.Random) -> None:
    for element in _pick([each for each in elements if each.get("class")], chance, "class"):
        names = element.get("class").split()
        names[chance.randrange(len(names))] = f"c{chance.randrange(10_000)}"
        element.set("class", " ".join(names))


def _wrap(elements: list[Element], chance: random.Random) -> None:
    wrappable = [each for each in elements if each.tag in ("a", "button", "form", "section", "p")]
    for element in _pick(wrappable, chance, "wrap"):
        parent = element.getparent()
        wrapper = parent.makeelement("span" if element.tag in ("a", "button") else "div", {})
        wrapper.tail, element.tail = element.tail, None
        parent.replace(element, wrapper)
        wrapper.append(element)


def _move(elements: list[Element], chance: random.Random) -> None:
    movable = [each for each in elements if each.tag in ("li", "section", "tr", "p", "fieldset")]
    for element in _pick(movable, chance, "move"):
        parent = element.getparent()
        element.tail = None
        parent.remove(element)
        parent.insert(chance.randrange(len(parent) + 1), element)


def _reword(elements: list[Element], chance: random.Random) -> None:
    for old in sorted(_OTHER_WORDS):
        if chance.random() < _SHARE["text"]:
            for element in elements:
                _replace(element, old, _OTHER_WORDS[old])


def _replace(element: Element, old: str, new: str) -> None:
    if element.text:
        element.text = element.text.replace(old, new)
    if element.tail:
        element.tail = element.tail.replace(old, new)
    for name in ("aria-label", "title"):
        if element.get(name):
            element.set(name, element.get(name).replace(old, new))


def _drop_attributes(elements: list[Element], chance: random.Random) -> None:
    referred = {other.get(name) for other in elements for name in _REFERRING}
    for element in elements:
        for name in _DROPPABLE:
            kept = name == "id" and element.get("id") in referred
            if element.get(name) and not kept and chance.random() < _SHARE["drop"]:
                del element.attrib[name]


_CHANGES: Final[tuple[Callable[[list[Element], random.Random], None], ...]] = (
    _rename_ids,
    _rename_test_ids,
    _change_classes,
    _reword,
    _drop_attributes,
    _move,
    _wrap,
)
