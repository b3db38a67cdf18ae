"""A driver without a browser: pages over HTTP, forms sent by MechanicalSoup, no scripts run.

The driver sees what markup alone shows: links, forms, labels, hidden elements. It runs no scripts,
reads no style sheets, and does not check fields before it sends a form. So a step that waits for a
script fails at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final
from urllib.parse import urldefrag, urljoin, urlsplit

import mechanicalsoup
import requests
from bs4 import BeautifulSoup
from lxml import html

from taskyard.errors import CodedError
from taskyard.tasks.dom.aria_roles import is_editable
from taskyard.tasks.dom.fetch import DEFAULT_TIMEOUT_S, BoundedSession
from taskyard.tasks.dom.page import Element, Page
from taskyard.tasks.dom.selectors import resolve
from taskyard.tasks.execution import form_controls
from taskyard.tasks.execution.driver import Sighting, Wanted, not_found, written
from taskyard.tasks.models.flow import Selectors

__all__ = ["BrowserlessDriver"]

_MARK: Final = "data-taskyard-mark"
_SILENT_KEYS: Final = frozenset({"Tab", "Escape", "Shift", "Control", "Alt", "Meta"})


class BrowserlessDriver:
    """A `Driver` without a browser; `timeout_s` limits each answer of the site with its body."""

    def __init__(self, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._browser = mechanicalsoup.Browser(session=BoundedSession(timeout_s))
        self._page = Page.parse("<html><body></body></html>")
        self._url = ""
        self._focus: Element | None = None

    def open(self, url: str) -> None:
        """Load a page; an error page of the site is a page like any other."""
        self._show(self._browser.session.get(url))

    def resize(self, width: int, height: int) -> None:
        """Do nothing: without style sheets a page has no size."""

    def click(self, selectors: Selectors, times: int = 1) -> Sighting:
        """Follow a link, send a form or tick a box; a click on any other element does nothing."""
        element, sighting = self._first_visible(selectors)
        for _ in range(times):
            self._click(element)
        return sighting

    def hover(self, selectors: Selectors) -> Sighting:
        """Find the element; without scripts and styles nothing else happens."""
        return self._first_visible(selectors)[1]

    def change(self, selectors: Selectors, value: str) -> Sighting:
        """Give a field a value."""
        element, sighting = self._first_visible(selectors, editable=True)
        form_controls.set_value(element, value)
        self._focus = element
        self._page = Page(self._page.root)
        return sighting

    def press(self, key: str) -> None:
        """Press a key: Enter sends the focused field's form, keys that move focus do nothing."""
        if key == "Enter":
            self._enter()
        elif key not in _SILENT_KEYS:
            message = f"the key {key!r} needs a real browser; without one there is Enter"
            raise CodedError("unsupported_action", message)

    def wait(self, selectors: Selectors, wanted: Wanted, timeout_s: float) -> Sighting:
        """Check the page once: without scripts the page does not change during a wait."""
        for selector, found in matches(self._page, selectors):
            count = len(fulfilling(self._page, wanted, found))
            if count:
                return Sighting(selector, count, wanted.accepts(count))
        return Sighting(None, 0, wanted.accepts(0))

    def exists(self, selectors: Selectors) -> bool:
        """Return whether any alternative finds an element."""
        return any(True for _ in matches(self._page, selectors))

    def text(self) -> str:
        """Return the text that the page shows, with single spaces."""
        return self._page.text(self._page.root)

    def title(self) -> str:
        """Return the page's title."""
        return str(self._page.root.findtext(".//title") or "").strip()

    def url(self) -> str:
        """Return the page's address."""
        return self._url

    def close(self) -> None:
        """Forget cookies and close connections."""
        self._browser.close()

    def _first_visible(
        self, selectors: Selectors, *, editable: bool = False
    ) -> tuple[Element, Sighting]:
        met_another = False
        for selector, found in matches(self._page, selectors):
            for element in found:
                if self._page.is_hidden(element):
                    continue
                if not editable or is_editable(element):
                    return element, Sighting(selector, len(found))
                met_another = True
        if met_another:
            message = f"the element that {selectors[0]!r} matches at {self._url} takes no value"
            raise CodedError("element_not_interactable", message)
        raise not_found(selectors, self._url)

    def _click(self, element: Element) -> None:
        actor = form_controls.actor_of(self._page, element)
        if actor is None:
            return
        form_controls.require_enabled(actor)
        self._focus = actor
        if actor.tag == "a":
            self._follow(actor.get("href") or "")
        elif form_controls.is_submit(actor):
            self._submit(form_controls.form_of(self._page, actor), actor)
        else:
            form_controls.toggle(self._page, actor)
            self._page = Page(self._page.root)

    def _follow(self, href: str) -> None:
        url = urljoin(self._base(), href)
        if href.startswith("#") or not href or urlsplit(url).scheme in ("mailto", "tel"):
            return
        self.open(url)

    def _base(self) -> str:
        base = self._page.root.find(".//base[@href]")
        return self._url if base is None else urljoin(self._url, base.get("href"))

    def _enter(self) -> None:
        if self._focus is None or self._focus.tag == "textarea":
            return
        if self._focus.tag in ("a", "button"):
            self._click(self._focus)
            return
        form = form_controls.form_of(self._page, self._focus)
        if form is not None:
            self._submit(form, form_controls.submit_button(form))

    def _submit(self, form: Element | None, button: Element | None) -> None:
        """Send the form with its present values.

        Marks in the markup show MechanicalSoup the form and the button.
        """
        if form is None:
            return
        _mark(form, button)
        soup = BeautifulSoup(html.tostring(self._page.root, encoding="unicode"), "lxml")
        marked = mechanicalsoup.Form(soup.select_one(f"form[{_MARK}]"))
        marked.choose_submit(soup.select_one(f"form [{_MARK}]"))
        self._show(self._browser.submit(marked, url=self._base()))

    def _show(self, response: requests.Response) -> None:
        if "charset" not in response.headers.get("Content-Type", ""):
            response.encoding = response.apparent_encoding
        is_html = "html" in response.headers.get("Content-Type", "html")
        body = response.text if is_html else f"<pre>{escape(response.text)}</pre>"
        self._page = Page.parse(body or "<html><body></body></html>")
        self._url = urldefrag(response.url).url
        self._focus = None


def _mark(form: Element, button: Element | None) -> None:
    form.set(_MARK, "form")
    if button is None:
        return
    button.set(_MARK, "button")
    for ours, theirs in (("action", "formaction"), ("method", "formmethod")):
        if button.get(theirs) is not None:
            form.set(ours, button.get(theirs))


def matches(page: Page, selectors: Selectors) -> Iterator[tuple[str, list[Element]]]:
    """Return each alternative that finds an element, with all found elements, best first."""
    for alternative, label in zip(selectors, written(selectors), strict=True):
        chain = (alternative,) if isinstance(alternative, str) else alternative
        found = resolve(page, chain[0])
        for selector in chain[1:]:
            found = [inner for each in found for inner in resolve(page, selector, each)]
        if found:
            yield label, found


def fulfilling(page: Page, wanted: Wanted, found: list[Element]) -> list[Element]:
    """Return those of the elements that are in the wanted state."""
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
    """Return the value that a form would send for the element."""
    if element.tag == "textarea":
        return str(element.text or "")
    if element.tag != "select":
        return str(element.get("value") or "")
    options = list(element.iter("option"))
    chosen = [option for option in options if option.get("selected") is not None] or options[:1]
    return str(chosen[-1].get("value", " ".join(chosen[-1].itertext()).strip())) if chosen else ""
