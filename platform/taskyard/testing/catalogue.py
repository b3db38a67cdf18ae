"""The job types a yard knows, those of handlers registered a moment ago included."""

from __future__ import annotations

from collections.abc import Iterator

from taskyard.jobs import Catalogue, JobType
from taskyard.jobs.registry import Registry

__all__ = ["LiveCatalogue"]


class LiveCatalogue(Catalogue):
    """A catalogue and what the handlers' decorators define, read anew each time."""

    def __init__(self, base: Catalogue, handlers: Registry) -> None:
        super().__init__({})
        self._base, self._handlers = base, handlers

    def _now(self) -> Catalogue:
        known = self._base
        for handler in self._handlers.handlers():
            if handler.job_type is not None:
                known = known.with_type(handler.job_type)
        return known

    def __getitem__(self, name: str) -> JobType:
        """The type called `name`; raises `UnknownJobType` with the nearest names."""
        return self._now()[name]

    def __contains__(self, name: object) -> bool:
        """Whether the type is defined."""
        return name in self._now()

    def __iter__(self) -> Iterator[str]:
        """Names, in the order of definition."""
        return iter(self._now())

    def __len__(self) -> int:
        """How many types there are."""
        return len(self._now())

    def with_type(self, job_type: JobType) -> Catalogue:
        """A copy that also knows `job_type`."""
        return LiveCatalogue(self._base.with_type(job_type), self._handlers)
