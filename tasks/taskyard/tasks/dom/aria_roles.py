"""ARIA roles of elements without a `role` attribute (W3C, HTML Accessibility API Mappings)."""

from __future__ import annotations

from typing import Final

from taskyard.tasks.dom.page import Element

__all__ = ["INTERACTIVE_ROLES", "is_editable", "is_interactive", "role_of"]

_BY_TAG: Final = {
    "article": "article",
    "aside": "complementary",
    "button": "button",
    "dd": "definition",
    "details": "group",
    "dialog": "dialog",
    "dt": "term",
    "fieldset": "group",
    "figure": "figure",
    "form": "form",
    "hr": "separator",
    "li": "listitem",
    "main": "main",
    "menu": "list",
    "meter": "meter",
    "nav": "navigation",
    "ol": "list",
    "optgroup": "group",
    "option": "option",
    "output": "status",
    "p": "paragraph",
    "progress": "progressbar",
    "section": "region",
    "table": "table",
    "tbody": "rowgroup",
    "td": "cell",
    "textarea": "textbox",
    "tfoot": "rowgroup",
    "th": "columnheader",
    "thead": "rowgroup",
    "tr": "row",
    "ul": "list",
    **{f"h{level}": "heading" for level in range(1, 7)},
}
_BY_INPUT_TYPE: Final = {
    "button": "button",
    "checkbox": "checkbox",
    "email": "textbox",
    "image": "button",
    "number": "spinbutton",
    "radio": "radio",
    "range": "slider",
    "reset": "button",
    "search": "searchbox",
    "submit": "button",
    "tel": "textbox",
    "text": "textbox",
    "url": "textbox",
}
_ROLELESS_INPUTS: Final = frozenset(
    {"color", "date", "datetime-local", "file", "hidden", "month", "password", "time", "week"}
)
_SECTIONING: Final = ("article", "aside", "main", "nav", "section")
INTERACTIVE_ROLES: Final = frozenset(
    {"button", "checkbox", "combobox", "link", "listbox", "menuitem", "menuitemcheckbox"}
    | {"menuitemradio", "option", "radio", "searchbox", "slider", "spinbutton", "switch", "tab"}
    | {"textbox", "treeitem"}
)


def role_of(element: Element) -> str:
    """Return the element's role, written or implied; empty if it has none."""
    written = (element.get("role") or "").split()
    return written[0].lower() if written else _implied(element)


def _implied(element: Element) -> str:
    tag = str(element.tag)
    if tag == "input":
        return _input_role(element)
    if tag in ("a", "area"):
        return "link" if element.get("href") is not None else ""
    if tag == "img":
        return "" if element.get("alt") == "" else "img"
    if tag == "select":
        many = element.get("multiple") is not None or (element.get("size") or "1") != "1"
        return "listbox" if many else "combobox"
    if tag in ("header", "footer"):
        inside = next(element.iterancestors(*_SECTIONING), None) is not None
        return "" if inside else {"header": "banner", "footer": "contentinfo"}[tag]
    return _BY_TAG.get(tag, "")


def _input_role(element: Element) -> str:
    kind = (element.get("type") or "text").lower()
    if kind in _ROLELESS_INPUTS:
        return ""
    role = _BY_INPUT_TYPE.get(kind, "textbox")
    has_list = element.get("list") is not None and role in ("textbox", "searchbox")
    return "combobox" if has_list else role


def is_editable(element: Element) -> bool:
    """Return whether a person can give the element a value by typing or choosing."""
    if element.tag == "input":
        kind = (element.get("type") or "text").lower()
        return kind not in ("button", "hidden", "image", "reset", "submit")
    return element.tag in ("select", "textarea")


def is_interactive(element: Element) -> bool:
    """Return whether a person can act on the element itself; options count as their select."""
    if element.tag in ("option", "optgroup"):
        return False
    by_role = role_of(element) in INTERACTIVE_ROLES
    return by_role or is_editable(element) or element.tag == "summary"
