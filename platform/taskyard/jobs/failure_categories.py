"""What a failure is called when it is not retried, and which are never retried: one table of codes.

The codes are those of `taskyard.jobs.error_codes`.
"""

from __future__ import annotations

from typing import Final

from taskyard.jobs.error_codes import (
    INTERNAL_ERROR,
    RESULT_INVALID,
    RESULT_TOO_LARGE,
    TIMEOUT,
    VALIDATION_ERROR,
)
from taskyard.wire.letter_categories import Category

__all__ = ["NEVER_RETRIED", "category_exhausted", "category_unretried"]

# The same payload fails the same way, and so does a result that was computed once already.
NEVER_RETRIED: Final[dict[str, Category]] = {
    VALIDATION_ERROR: Category.VALIDATION_ERROR,
    RESULT_INVALID: Category.NON_RETRYABLE,
    RESULT_TOO_LARGE: Category.NON_RETRYABLE,
}
"""Codes that no policy can have retried, each with its category."""

_UNRETRIED: Final[dict[str, Category]] = {
    TIMEOUT: Category.TIMEOUT,
    INTERNAL_ERROR: Category.INTERNAL_ERROR,
    **NEVER_RETRIED,
}


def category_unretried(code: str) -> Category:
    """Return the category of a failure that its policy does not retry."""
    return _UNRETRIED.get(code, Category.NON_RETRYABLE)


def category_exhausted(code: str) -> Category:
    """Return the category of a failure after the last retry."""
    return Category.TIMEOUT if code == TIMEOUT else Category.RETRY_EXHAUSTED
