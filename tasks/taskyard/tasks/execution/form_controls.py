"""Clicks and typing on a parsed page, without scripts."""

from __future__ import annotations

from taskyard.errors import CodedError
from taskyard.tasks.dom.page import Element, Page, squeeze

__all__ = ["actor_of", "form_of", "is_submit", "require_enabled", "set_value", "submit_button"]
__all__ += ["toggle"]

_ACTORS = ("a", "button", "input", "label", "option", "select", "summary", "textarea")


def actor_of(page: Page, element: Element) -> Element | None:
    """Return the element that reacts to a click: the element, one around it, or a label's field."""
    around = [element, *element.iterancestors()]
    actor = next((each for each in around if each.tag in _ACTORS), None)
    if actor is None or actor.tag != "label":
        return actor
    return next((field for field, labels in page.labels.items() if actor in labels), None)


def form_of(page: Page, element: Element) -> Element | None:
    """Return the form that the element belongs to."""
    if element.get("form") is not None:
        return page.by_id.get(element.get("form"))
    return next(element.iterancestors("form"), None)


def is_submit(element: Element) -> bool:
    """Return whether a click on the element sends its form."""
    kind = (element.get("type") or "").lower()
    if element.tag == "button":
        return kind not in ("button", "reset")
    return element.tag == "input" and kind in ("submit", "image")


def submit_button(form: Element) -> Element | None:
    """Return the button that the Enter key presses."""
    buttons = form.iter("button", "input")
    return next((each for each in buttons if is_submit(each) and not _is_off(each)), None)


def toggle(page: Page, element: Element) -> None:
    """Tick or untick a checkbox, choose a radio button, open or close a summary, pick an option."""
    kind = (element.get("type") or "").lower()
    if element.tag == "option":
        select = next(element.iterancestors("select"))
        _choose(select, element)
    elif element.tag == "summary":
        _flip(element.getparent(), "open")
    elif kind == "radio":
        _choose_radio(page, element)
    elif kind == "checkbox":
        _flip(element, "checked")


def set_value(element: Element, value: str) -> None:
    """Give a field a value.

    Raises CodedError if the field takes no value, or has no such option.
    """
    kind = (element.get("type") or "text").lower()
    if _is_off(element) or element.get("readonly") is not None:
        raise _refused(element, "is disabled or read-only")
    if element.tag == "select":
        _choose(element, _option(element, value))
    elif element.tag == "textarea":
        element.text = value
    elif kind == "file":
        raise CodedError("unsupported_action", "choosing files needs a real browser")
    elif kind in ("checkbox", "radio"):
        raise _refused(element, f"is a {kind}: click it")
    else:
        element.set("value", value)


def _option(select: Element, value: str) -> Element:
    options = list(select.iter("option"))
    for option in options:
        words = squeeze("".join(option.itertext()))
        if value in (option.get("value", words), words, option.get("label")):
            return option
    known = ", ".join(squeeze("".join(option.itertext())) for option in options[:20])
    message = f"expected one of the list's options ({known}), got {value!r}"
    raise CodedError("element_not_found", message)


def _choose(select: Element, option: Element) -> None:
    if select.get("multiple") is None:
        for other in select.iter("option"):
            other.attrib.pop("selected", None)
    option.set("selected", "selected")


def _choose_radio(page: Page, element: Element) -> None:
    form = form_of(page, element)
    for other in page.root.iter("input"):
        same_group = other.get("name") == element.get("name") and form_of(page, other) is form
        if (other.get("type") or "").lower() == "radio" and same_group:
            other.attrib.pop("checked", None)
    element.set("checked", "checked")


def _flip(element: Element, attribute: str) -> None:
    if element.attrib.pop(attribute, None) is None:
        element.set(attribute, attribute)


def _is_off(element: Element) -> bool:
    if element.get("disabled") is not None:
        return True
    return any(each.get("disabled") is not None for each in element.iterancestors("fieldset"))


def _refused(element: Element, why: str) -> CodedError:
    name = element.get("name") or element.get("id") or element.tag
    return CodedError("element_not_interactable", f"the {element.tag} {name!r} {why}")


def require_enabled(element: Element) -> None:
    """Raise CodedError `element_not_interactable` if the element is disabled."""
    if _is_off(element):
        raise _refused(element, "is disabled")
