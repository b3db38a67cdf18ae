"""`celery -A taskyard.workers.app worker -Q exec`: the app, built when it is asked for."""

from __future__ import annotations

from functools import cache
from typing import Any

from taskyard.errors import TaskyardError
from taskyard.jobs import Catalogue, registry
from taskyard.settings import load
from taskyard.workers.build import build_app

__all__ = ["app"]  # noqa: F822 - made by __getattr__


@cache
def _build() -> Any:
    settings = load().settings
    registry.load_entry_points()
    return build_app(settings, Catalogue.load(*settings.job_types), registry)


def __getattr__(name: str) -> Any:
    if name not in ("app", "celery"):
        raise AttributeError(name)
    try:
        return _build()
    except TaskyardError as error:
        # Celery's command line imports this module: what a person reads there is this sentence.
        raise SystemExit(f"taskyard: {error}") from None
