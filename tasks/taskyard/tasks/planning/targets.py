"""Convert the words of a phrase to selectors: what a person would look for comes first."""

from __future__ import annotations

from typing import Final

from taskyard.tasks.dom.quoting import css_string
from taskyard.tasks.models.flow import Selectors

__all__ = ["KINDS", "by_selector", "by_test_id", "clickable", "element", "field", "shown_text"]

KINDS: Final = {
    "button": "button",
    "link": "link",
    "heading": "heading",
    "checkbox": "checkbox",
    "radio button": "radio",
    "option": "option",
    "tab": "tab",
    "menu item": "menuitem",
    "image": "img",
    "list": "list",
    "table": "table",
    "region": "region",
    "navigation": "navigation",
    "alert": "alert",
    "status": "status",
}
"""The names of element kinds in phrases, and the role of each kind."""

_FIELD_ROLES: Final = ("textbox", "searchbox", "spinbutton", "combobox", "listbox", "slider")
_CLICKABLE_ROLES: Final = ("button", "link", "checkbox", "radio", "tab", "menuitem", "option")


def element(name: str, kind: str) -> Selectors:
    """Return selectors for an element of a named kind."""
    return _alternatives([_aria(name, KINDS[kind])])


def clickable(name: str) -> Selectors:
    """Return selectors for any element that can be clicked and has `name`; its text comes last."""
    return _alternatives([_aria(name, role) for role in _CLICKABLE_ROLES] + [f"text/{name}"])


def field(name: str) -> Selectors:
    """Return selectors for a field: by accessible name, then placeholder, then name attribute."""
    by_role = [_aria(name, role) for role in _FIELD_ROLES]
    by_attribute = [
        f"{tag}[{attribute}={css_string(name)}]"
        for attribute in ("placeholder", "name")
        for tag in ("input", "textarea", "select")
    ]
    return _alternatives([*by_role, *by_attribute, f"aria/{name}"])


def shown_text(text: str) -> Selectors:
    """Return selectors for the innermost elements that show `text`."""
    return _alternatives([f"text/{text}"])


def by_test_id(test_id: str, attribute: str) -> Selectors:
    """Return selectors for an element by its test id."""
    return _alternatives([f"[{attribute}={css_string(test_id)}]"])


def by_selector(selector: str) -> Selectors:
    """Return the selector that the author wrote."""
    return _alternatives([selector])


def _alternatives(selectors: list[str]) -> Selectors:
    return tuple((selector,) for selector in selectors)


def _aria(name: str, role: str) -> str:
    return f'aria/{name}[role="{role}"]'
