"""Several locators for each element of a page; each locator finds only this element."""

from taskyard.tasks.locators.batch import make_batch
from taskyard.tasks.locators.element import locators_for

__all__ = ["locators_for", "make_batch"]
