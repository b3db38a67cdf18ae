"""The catalogue: every job type that this installation knows, read from YAML.

A file has the sections `job_retry_policies:` (by type name) and `job_types:` (queue, SLA, limits
and owner). A later file overrides an earlier one field by field, in policies too.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Final, Self

import yaml
from pydantic import ValidationError

from taskyard.errors import InvalidSettings, UnknownJobType
from taskyard.jobs.retry_policy import RetryPolicy
from taskyard.jobs.types import JobType
from taskyard.settings import Settings

__all__ = ["BUILT_IN", "Catalogue", "define", "layers", "merge_fields"]

BUILT_IN: Final = "built in"

_TASK_OF_AN_APP: Final = (
    " If it is a task of an existing Celery app, it is no job type: its retries and limits stand "
    "in its @app.task, and the app itself enqueues it (delay, apply_async). See: taskyard check "
    "MODULE:APP"
)
_SECTIONS = ("job_types", "job_retry_policies")


class Catalogue(Mapping[str, JobType]):
    """Job types by name."""

    def __init__(self, types: Mapping[str, JobType]) -> None:
        self._types = dict(types)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the types that `settings` ask for; raises `InvalidSettings`."""
        return cls.load(*settings.job_types, built_in=settings.builtin_jobs)

    @classmethod
    def load(cls, *files: Path, built_in: bool = False) -> Self:
        """Return the types in `files`; a later file overrides an earlier one.

        Raises `InvalidSettings`. With `built_in` the built-in types come before the first file.
        """
        merged: dict[str, dict[str, object]] = {}
        for _, raw in layers(*files, built_in=built_in):
            _merge(merged, raw)
        return cls({name: define(name, raw) for name, raw in merged.items()})

    def __getitem__(self, name: str) -> JobType:
        """The type called `name`; raises `UnknownJobType` with the nearest names."""
        try:
            return self._types[name]
        except KeyError:
            raise UnknownJobType(_unknown(name, self._types)) from None

    def __contains__(self, name: object) -> bool:
        """Whether the type is defined."""
        return name in self._types

    def __iter__(self) -> Iterator[str]:
        """Names, in the order of definition."""
        return iter(self._types)

    def __len__(self) -> int:
        """How many types there are."""
        return len(self._types)

    @cached_property
    def review_queues(self) -> frozenset[str]:
        """Return the queues to which the types' policies escalate.

        A policy in a message adds no queue to this list.
        """
        named = (job_type.policy.escalate_on_failure for job_type in self._types.values())
        return frozenset(name for name in named if name is not None)

    def domain_of(self, name: str) -> str:
        """Return the domain of a type; empty if it has none or is unknown here."""
        return (self[name].domain or "") if name in self else ""

    def with_type(self, job_type: JobType) -> Catalogue:
        """Return a copy that also has `job_type`."""
        return Catalogue({**self._types, job_type.name: job_type})


def layers(*files: Path, built_in: bool) -> Iterator[tuple[str, dict[str, dict[str, object]]]]:
    """Yield the definitions of the built-in types, if wanted, and of each file, with its source."""
    if built_in:
        text = resources.files("taskyard.jobs").joinpath("builtin.yaml").read_text("utf-8")
        yield BUILT_IN, _parse(text, "the built-in job types")
    for file in files:
        yield str(file), _parse(_read(file), str(file))


def _unknown(name: str, known: Mapping[str, JobType]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return (
        f"there is no job type {name!r}. {hint}Known: {', '.join(sorted(known)) or 'none'}. "
        "Import the module with its @job handler, or define it in a file that TASKYARD_JOB_TYPES "
        "names; the built-in types need TASKYARD_BUILTIN_JOBS=1."
        + (_TASK_OF_AN_APP if "." in name else "")
    )


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"the job type file {file} cannot be read ({error}); see TASKYARD_JOB_TYPES"
        raise InvalidSettings(msg) from error


def _parse(text: str, source: str) -> dict[str, dict[str, object]]:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidSettings(f"{source} is not valid YAML: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        msg = f"{source}: expected the sections {_SECTIONS}, got {type(document).__name__}"
        raise InvalidSettings(msg)
    for key in document:
        if key not in _SECTIONS:
            near = difflib.get_close_matches(str(key), _SECTIONS, n=1)
            hint = f" did you mean {near[0]!r}?" if near else ""
            raise InvalidSettings(f"{source}: unknown section {key!r};{hint} known: {_SECTIONS}")
    types = _section(document, "job_types", source)
    for name, policy in _section(document, "job_retry_policies", source).items():
        types.setdefault(name, {})["policy"] = policy
    return types


def _section(document: dict[str, object], key: str, source: str) -> dict[str, dict[str, object]]:
    section = document.get(key) or {}
    if not isinstance(section, dict):
        msg = f"{source}: {key} must map names to settings, got {type(section).__name__}"
        raise InvalidSettings(msg)
    for name, raw in section.items():
        if not isinstance(raw, dict):
            msg = f"{source}: {key}.{name} must be a mapping, got {raw!r}"
            raise InvalidSettings(msg)
    return {str(name): dict(raw) for name, raw in section.items()}


def _merge(into: dict[str, dict[str, object]], more: dict[str, dict[str, object]]) -> None:
    for name, raw in more.items():
        into[name] = merge_fields(into.get(name, {}), raw)


def merge_fields(under: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """Return the fields of a type from two sources; `over` wins, within the policy too."""
    merged = {**under, **over}
    policy, override = under.get("policy"), over.get("policy")
    if isinstance(policy, RetryPolicy):
        policy = policy.model_dump(exclude_unset=True)
    if isinstance(policy, Mapping) and isinstance(override, Mapping):
        # A change of one limit must not remove the other limits of the policy.
        merged["policy"] = {**policy, **override}
    return merged


def define(name: str, raw: Mapping[str, object]) -> JobType:
    """Define the job type called `name`.

    Raises `InvalidSettings` with field, value and nearest name.
    """
    try:
        return JobType.model_validate({"name": name, **raw})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in fault["loc"])
        near = difflib.get_close_matches(str(fault["loc"][-1]) if fault["loc"] else "", _fields())
        hint = f" Did you mean {near[0]!r}?" if fault["type"] == "extra_forbidden" and near else ""
        msg = f"job type {name!r}: {field}: {fault['msg']}, got: {fault['input']!r}.{hint}"
        raise InvalidSettings(msg) from error


def _fields() -> list[str]:
    policy = JobType.model_fields["policy"].annotation
    names = list(getattr(policy, "model_fields", {}))
    return [*JobType.model_fields, *names]
