"""One parsed page, with caches for repeated lookups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from typing import Final

from lxml import etree, html
from lxml.etree import _Element as Element

from taskyard.errors import CodedError

__all__ = ["Element", "Page", "squeeze"]

_UNSEEN_TAGS: Final = frozenset(
    {"head", "script", "style", "template", "noscript", "title", "meta"}
)
_INLINE_TAGS: Final = frozenset(
    {"a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "dfn", "em", "font", "i", "kbd"}
    | {"mark", "q", "s", "samp", "small", "span", "strong", "sub", "sup", "time", "u", "var"}
)
_WORDED_INPUTS: Final = ("submit", "button", "reset")
_HIDING_STYLES: Final = ("display:none", "visibility:hidden")


def squeeze(text: str) -> str:
    """Return `text` with single spaces instead of runs of white space, and none at the ends."""
    return " ".join(text.split())


class Page:
    """A page and its caches; after a change of the tree, make a new page from `root`."""

    def __init__(self, root: Element) -> None:
        self.root = root
        self.names: dict[Element, str] = {}
        self.named: dict[str, list[Element]] | None = None
        self.labelled: Counter[str] | None = None
        self._hidden: dict[Element, bool] = {}
        self._raws: dict[Element, str] = {}
        self._texts: dict[Element, str] = {}
        self._steps: dict[Element, str] = {}

    @classmethod
    def parse(cls, text: str) -> Page:
        """Parse HTML as browsers do, without loading anything that the page refers to.

        Raises CodedError `invalid_page`.
        """
        parser = html.HTMLParser(encoding="utf-8", no_network=True, remove_comments=True)
        try:
            root = html.document_fromstring(text.encode("utf-8", "replace"), parser=parser)
        except (etree.ParserError, etree.XMLSyntaxError) as error:
            message = f"expected an HTML page, got {text[:80]!r} ({error})"
            raise CodedError("invalid_page", message) from error
        _refuse_cut(parser)
        return cls(root)

    @cached_property
    def elements(self) -> tuple[Element, ...]:
        """Return every element, in document order."""
        return tuple(self.root.iter(etree.Element))

    @cached_property
    def visible(self) -> tuple[Element, ...]:
        """Return every element that a person could see, in document order."""
        return tuple(element for element in self.elements if not self.is_hidden(element))

    @cached_property
    def by_id(self) -> dict[str, Element]:
        """Return the first element of each id."""
        found: dict[str, Element] = {}
        for element in self.elements:
            if element.get("id"):
                found.setdefault(element.get("id"), element)
        return found

    @cached_property
    def labels(self) -> dict[Element, list[Element]]:
        """Return the label elements of each field."""
        found: dict[Element, list[Element]] = {}
        for label in self.root.iter("label"):
            field = self._labelled(label)
            if field is not None:
                found.setdefault(field, []).append(label)
        return found

    def _labelled(self, label: Element) -> Element | None:
        if label.get("for") is not None:
            return self.by_id.get(label.get("for"))
        fields = label.iter("input", "select", "textarea", "button", "meter", "output", "progress")
        return next(fields, None)

    def is_hidden(self, element: Element) -> bool:
        """Return whether markup hides the element or one around it; style sheets are not read."""
        known = self._hidden.get(element)
        if known is None:
            parent = element.getparent()
            known = _hides(element) or (parent is not None and self.is_hidden(parent))
            self._hidden[element] = known
        return known

    def text(self, element: Element) -> str:
        """Return the text that the element shows, with single spaces; a space separates blocks."""
        known = self._texts.get(element)
        if known is None:
            known = self._texts[element] = squeeze(self._raw(element))
        return known

    def _raw(self, element: Element) -> str:
        known = self._raws.get(element)
        if known is None:
            known = "" if _is_unseen(element) else "".join(self._pieces(element))
            if element.tag == "input" and element.get("type") in _WORDED_INPUTS:
                known = element.get("value") or ""
            self._raws[element] = known
        return known

    def _pieces(self, element: Element) -> Iterator[str]:
        yield element.text or ""
        for child in element:
            apart = "" if child.tag in _INLINE_TAGS else " "
            yield from (apart, self._raw(child), apart, child.tail or "")

    def path(self, element: Element) -> str:
        """Return the element's absolute XPath, in which each step has its index."""
        steps = [self.step(element)]
        steps += [self.step(above) for above in element.iterancestors()]
        return "/" + "/".join(reversed(steps))

    def step(self, element: Element) -> str:
        """Return the path's last step: the element's tag, and its index among such siblings."""
        if element not in self._steps:
            self._number(element)
        return self._steps[element]

    def _number(self, element: Element) -> None:
        """Number the element and its siblings in one pass: pages may have thousands of them."""
        parent = element.getparent()
        places: Counter[str] = Counter()
        for each in (element,) if parent is None else parent.iterchildren(etree.Element):
            places[each.tag] += 1
            self._steps[each] = f"{each.tag}[{places[each.tag]}]"


def _refuse_cut(parser: html.HTMLParser) -> None:
    """Raise an error for a page nested so deeply that the parser drops its inner elements."""
    if any("depth" in entry.message for entry in parser.error_log):
        raise CodedError("invalid_page", "the page is nested more deeply than can be parsed")


def _is_unseen(element: Element) -> bool:
    return not isinstance(element.tag, str) or element.tag in _UNSEEN_TAGS or _hides(element)


def _hides(element: Element) -> bool:
    style = (element.get("style") or "").replace(" ", "").lower()
    return (
        element.tag in _UNSEEN_TAGS
        or element.get("hidden") is not None
        or (element.tag == "input" and (element.get("type") or "").lower() == "hidden")
        or any(hiding in style for hiding in _HIDING_STYLES)
    )
