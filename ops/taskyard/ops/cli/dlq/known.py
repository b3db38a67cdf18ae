"""What this process knows of the workers' job types, for a payload that an operator edits."""

from __future__ import annotations

from taskyard.control import KnownTypes
from taskyard.errors import InvalidSettings
from taskyard.jobs import Catalogue, registry
from taskyard.ops.cli.console import note
from taskyard.settings import Settings

__all__ = ["known_types"]


def known_types(settings: Settings) -> KnownTypes:
    """The catalogue, and the handlers that are installed here; those of workers may be more.

    An operator's machine needs no handler: where they cannot be imported a line says why.
    """
    try:
        failures = registry.load_entry_points(built_in=settings.builtin_jobs)
    except InvalidSettings as error:
        failures = [str(error)]
    for failure in failures:
        note(f"the payload is checked without some handlers: {failure}")
    return KnownTypes(registry.under(Catalogue.of(settings)), registry)
