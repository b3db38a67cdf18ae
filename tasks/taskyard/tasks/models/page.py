"""The page that a job works on: its text or its URL."""

from __future__ import annotations

from pydantic import Field, model_validator

from taskyard.tasks.models.base import MAX_HTML_CHARS, HttpUrl, Model

__all__ = ["PageRequest"]


class PageRequest(Model):
    """A page: either its text, or the URL from which the worker fetches it."""

    html: str | None = Field(default=None, max_length=MAX_HTML_CHARS)
    url: HttpUrl | None = None

    @model_validator(mode="after")
    def _one_page(self) -> PageRequest:
        if (self.html is None) == (self.url is None):
            raise ValueError("expected exactly one of html and url")
        return self
