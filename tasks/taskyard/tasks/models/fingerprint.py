"""The properties of an element at one moment; healing compares them with a later page."""

from __future__ import annotations

from pydantic import Field

from taskyard.tasks.models.base import Model

__all__ = ["Box", "Fingerprint"]


class Box(Model):
    """Where an element was drawn, in CSS pixels from the page's top left corner."""

    x: float
    y: float
    width: float = Field(ge=0)
    height: float = Field(ge=0)


class Fingerprint(Model):
    """The properties of one element that later versions of its page probably keep.

    `text` is what the element shows, `neighbour_text` the text near it, `label` its accessible
    name. `idxpath` starts at the nearest ancestor with an id. `box` is known only if a real browser
    drew the page; otherwise None.
    """

    tag: str = Field(min_length=1)
    id: str = ""
    name: str = ""
    type: str = ""
    role: str = ""
    label: str = ""
    test_id: str = ""
    href: str = ""
    alt: str = ""
    title: str = ""
    placeholder: str = ""
    value: str = ""
    classes: tuple[str, ...] = ()
    text: str = ""
    neighbour_text: str = ""
    xpath: str = ""
    idxpath: str = ""
    is_button: bool = False
    box: Box | None = None
