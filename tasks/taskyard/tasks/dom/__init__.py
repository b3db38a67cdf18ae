"""Parse a page and find what a person or a screen reader finds: visible elements, roles, names."""

from taskyard.tasks.dom.fetch import BoundedSession, fetch_html
from taskyard.tasks.dom.page import Element, Page
from taskyard.tasks.dom.selectors import resolve

__all__ = ["BoundedSession", "Element", "Page", "fetch_html", "resolve"]
