"""Where each field of a job type comes from: a file, a decorator, or the default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from taskyard.jobs import Catalogue, JobType, registry
from taskyard.jobs.catalogue import define, layers
from taskyard.jobs.handler_registry import Handler
from taskyard.ops.cli.local_handlers import load_handlers
from taskyard.settings import Settings

__all__ = ["DEFAULT", "Known", "by_decorator", "known_types", "the_type"]

DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True)
class Known:
    """A job type with the place where each field was set.

    `origins` has the fields that were set explicitly, a policy's as `policy.<field>`. `handler` is
    the function's full name, None if this machine has none.
    """

    job_type: JobType
    origins: Mapping[str, str]
    handler: str | None

    def origin(self, field: str) -> str:
        """Return where `field` was set."""
        return self.origins.get(field, DEFAULT)


def known_types(settings: Settings) -> tuple[dict[str, Known], str | None]:
    """Return every type by name, and why this machine's handlers are unknown (None if known).

    Raises `InvalidSettings` for a file that cannot be used.
    """
    catalogue = Catalogue.of(settings)
    why_unknown = "; ".join(load_handlers(settings)) or None
    handlers = {handler.name: handler for handler in registry.handlers()}
    files = _by_files(settings)
    found = {}
    for name, job_type in registry.under(catalogue).items():
        handler = handlers.get(name)
        origins = {**by_decorator(handler), **files.get(name, {})}
        found[name] = Known(job_type, origins, _full_name(handler))
    return found, why_unknown


def the_type(types: Mapping[str, Known], name: str) -> Known:
    """Return the type called `name`; raises `UnknownJobType` with the nearest name."""
    catalogue = Catalogue({known: found.job_type for known, found in types.items()})
    return types[catalogue[name].name]


def _by_files(settings: Settings) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for source, types in layers(*settings.job_types, built_in=settings.builtin_jobs):
        for name, raw in types.items():
            found.setdefault(name, {}).update(_origins(raw, source))
    return found


def by_decorator(handler: Handler | None) -> dict[str, str]:
    """Return the origins of the fields that the handler's decorator sets."""
    if handler is None or not handler.settings:
        return {}
    given = define(handler.name, {"queue": "", **handler.settings})
    fields = given.model_dump(exclude_unset=True, include=set(handler.settings))
    return _origins(fields, f"decorator of {_full_name(handler)}")


def _origins(fields: Mapping[str, object], source: str) -> dict[str, str]:
    """Return `source` for each field, and for each field of a policy as `policy.<field>`."""
    found: dict[str, str] = {}
    for name, value in fields.items():
        if name == "policy" and isinstance(value, Mapping):
            found.update({f"policy.{part}": source for part in value})
        else:
            found[name] = source
    return found


def _full_name(handler: Handler | None) -> str | None:
    if handler is None:
        return None
    return f"{handler.function.__module__}.{handler.function.__qualname__}"
