"""Where each field of a job type comes from: a file, a decorator, or the default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from taskyard.errors import InvalidSettings
from taskyard.jobs import Catalogue, JobType, registry
from taskyard.jobs.catalogue import layers
from taskyard.jobs.handler_registry import Handler
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
    silence = _load_handlers(settings)
    handlers = {handler.name: handler for handler in registry.handlers()}
    files = _by_files(settings)
    found = {}
    for name, job_type in registry.under(catalogue).items():
        handler = handlers.get(name)
        origins = files[name] if name in catalogue else by_decorator(handler)
        found[name] = Known(job_type, origins, _full_name(handler))
    return found, silence


def the_type(types: Mapping[str, Known], name: str) -> Known:
    """Return the type called `name`; raises `UnknownJobType` with the nearest name."""
    catalogue = Catalogue({known: found.job_type for known, found in types.items()})
    return types[catalogue[name].name]


def _load_handlers(settings: Settings) -> str | None:
    try:
        failures = registry.load_entry_points(built_in=settings.builtin_jobs)
    except InvalidSettings as error:
        return str(error)
    return "; ".join(failures) or None


def _by_files(settings: Settings) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for source, types in layers(*settings.job_types, built_in=settings.builtin_jobs):
        for name, raw in types.items():
            origins = found.setdefault(name, {})
            for field, value in raw.items():
                if field == "policy" and isinstance(value, dict):
                    origins.update({f"policy.{part}": source for part in value})
                else:
                    origins[field] = source
    return found


def by_decorator(handler: Handler | None) -> dict[str, str]:
    """Return the origins of a type that only its handler's decorator defines."""
    if handler is None or handler.job_type is None:
        return {}
    source = f"decorator of {_full_name(handler)}"
    given = handler.job_type.model_fields_set - {"name", "policy"}
    policy = handler.job_type.policy.model_fields_set if _has_policy(handler.job_type) else ()
    return {
        **dict.fromkeys(given, source),
        **dict.fromkeys((f"policy.{part}" for part in policy), source),
    }


def _has_policy(job_type: JobType) -> bool:
    return "policy" in job_type.model_fields_set


def _full_name(handler: Handler | None) -> str | None:
    if handler is None:
        return None
    return f"{handler.function.__module__}.{handler.function.__qualname__}"
