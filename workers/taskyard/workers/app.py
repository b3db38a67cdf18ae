"""`celery -A taskyard.workers.app worker -Q exec`: the app, built at first access."""

from __future__ import annotations

from functools import cache
from typing import Any

from taskyard.access.operator_task_table import OPERATOR_TASKS
from taskyard.errors import InvalidSettings, TaskyardError
from taskyard.jobs import Catalogue, registry
from taskyard.settings import load
from taskyard.workers.build import build_app
from taskyard.workers.logs import log_at_start

__all__ = ["app"]  # noqa: F822 - created by __getattr__


@cache
def _build() -> Any:
    settings = load().settings
    failures = registry.load_entry_points(built_in=settings.builtin_jobs)
    own = (handler for handler in registry.handlers() if handler.name not in OPERATOR_TASKS)
    if failures and not any(own):
        raise InvalidSettings(
            "no handler can be imported, so every job would become a dead letter: "
            f"{'; '.join(failures)}. Correct the modules, then start again"
        )
    for failure in failures:
        log_at_start(f"{failure}; jobs of its types become dead letters in this worker")
    return build_app(settings, Catalogue.of(settings), registry)


def __getattr__(name: str) -> Any:
    if name not in ("app", "celery"):
        raise AttributeError(name)
    try:
        return _build()
    except TaskyardError as error:
        # Celery's command line imports this module and shows this sentence to a person.
        raise SystemExit(f"taskyard: {error}") from None
