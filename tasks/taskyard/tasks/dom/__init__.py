"""A page as a person or a screen reader meets it: parsing, visibility, roles, names, selectors."""

from taskyard.tasks.dom.fetch import BoundedSession, fetch_html
from taskyard.tasks.dom.page import Element, Page
from taskyard.tasks.dom.selectors import resolve

__all__ = ["BoundedSession", "Element", "Page", "fetch_html", "resolve"]
