"""Import the handlers of this machine, for commands that also work without them."""

from __future__ import annotations

from taskyard.errors import InvalidSettings
from taskyard.jobs import registry
from taskyard.settings import Settings

__all__ = ["load_handlers"]


def load_handlers(settings: Settings) -> list[str]:
    """Import the handlers; return what failed, one line each."""
    try:
        return list(registry.load_entry_points(built_in=settings.builtin_jobs))
    except InvalidSettings as error:
        return [str(error)]
