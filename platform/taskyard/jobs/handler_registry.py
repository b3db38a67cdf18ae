"""Handlers: the functions that do a job type's work, registered by a decorator."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from taskyard.errors import DuplicateName, InvalidSettings
from taskyard.jobs.attempt_context import JobContext
from taskyard.jobs.catalogue import Catalogue, define, merge_fields
from taskyard.jobs.types import JobType

__all__ = ["ENTRY_POINTS", "Handler", "Registry", "job", "registry"]

ENTRY_POINTS: Final = "taskyard.jobs"
_BUILT_IN_MODULES: Final = "taskyard.tasks."

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Handler:
    """A registered handler: the function, and what its signature says.

    `payload_model` is None if the handler takes the raw payload; `wants_context` if the handler
    takes a second parameter. `settings` are those of the decorator, as they were given.
    `job_type` is set if the decorator itself defines the type. A
    decorator with settings and without a queue defines no type: then `lacks_queue` is the
    decorator's place in the code, and a job type file must define the type.
    """

    name: str
    function: Callable[..., Any]
    payload_model: type[BaseModel] | None
    wants_context: bool
    is_async: bool
    job_type: JobType | None
    lacks_queue: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


class Registry:
    """Handlers by job type."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def job(self, name: str, **type_settings: Any) -> Callable[[F], F]:
        """Register the decorated function, sync or async, as the handler of job type `name`.

        It takes `(payload)` or `(payload, context)`; a pydantic annotation on the payload makes it
        validated. With settings (`queue="exec"`, `policy={...}` and the other fields of `JobType`)
        it also defines the type for whoever imports the module; a field that a job type file has
        wins. Raises `DuplicateName`, and `InvalidSettings` with file and line for wrong settings.
        """

        def register(function: F) -> F:
            handler = _inspect(name, function)
            self._add(_with_settings(handler, type_settings) if type_settings else handler)
            return function

        return register

    def _add(self, handler: Handler) -> None:
        known = self._handlers.get(handler.name)
        if known is not None and _origin(known.function) != _origin(handler.function):
            msg = (
                f"job type {handler.name!r} has two handlers: {_origin(known.function)} and "
                f"{_origin(handler.function)}; rename or remove one"
            )
            raise DuplicateName(msg)
        self._handlers[handler.name] = handler

    def load_entry_points(self, *, built_in: bool) -> Sequence[str]:
        """Import the modules of entry point group `taskyard.jobs`.

        Return what failed, one line each.

        A module of another package that cannot be imported affects only its own handlers. The
        built-in jobs are imported only if `built_in`; raises `InvalidSettings` if that fails, since
        they were enabled.
        """
        failures = []
        for entry in entry_points(group=ENTRY_POINTS):
            is_builtin = entry.value.startswith(_BUILT_IN_MODULES)
            if is_builtin and not built_in:
                continue
            try:
                entry.load()
            except Exception as error:
                failure = (
                    f"the job handlers {entry.value!r} (entry point {entry.name!r}) cannot be "
                    f"imported: {type(error).__name__}: {error}"
                )
                if is_builtin:
                    raise InvalidSettings(
                        f"{failure}. TASKYARD_BUILTIN_JOBS enables them: install "
                        "'taskyard[builtin]', or unset it."
                    ) from error
                failures.append(failure)
        return failures

    def under(self, catalogue: Catalogue, *, skip_without_queue: bool = False) -> Catalogue:
        """Return the catalogue with the decorators' settings laid under its own, field by field.

        Raises `InvalidSettings` for a decorator without a queue, unless the catalogue defines the
        type, and for fields that are valid one by one but not together. With `skip_without_queue`
        such a decorator defines no type instead.
        """
        for handler in self.handlers():
            if skip_without_queue and handler.lacks_queue and handler.name not in catalogue:
                continue
            job_type = _under(handler, catalogue)
            if job_type is not None:
                catalogue = catalogue.with_type(job_type)
        return catalogue

    def __getitem__(self, name: str) -> Handler:
        """The handler of `name`; KeyError if none is registered."""
        return self._handlers[name]

    def __contains__(self, name: object) -> bool:
        """Whether a handler is registered."""
        return name in self._handlers

    def handlers(self) -> tuple[Handler, ...]:
        """All handlers, in the order of registration."""
        return tuple(self._handlers.values())


def _origin(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def _place(function: Callable[..., Any]) -> str:
    """Return where the function begins, as `file:line`."""
    code = inspect.unwrap(function).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def _under(handler: Handler, catalogue: Catalogue) -> JobType | None:
    """Return the handler's type: the fields of the catalogue, then those of the decorator."""
    if handler.name in catalogue:
        return _merged(handler, catalogue[handler.name]).with_annotation(handler.payload_model)
    if handler.lacks_queue:
        raise InvalidSettings(
            f"{handler.lacks_queue}: job type {handler.name!r} has settings and no queue. "
            'Give its decorator one (queue="exec"), or define the type in a file that '
            "TASKYARD_JOB_TYPES names"
        )
    if handler.job_type is None:
        return None
    return handler.job_type.with_annotation(handler.payload_model)


def _merged(handler: Handler, known: JobType) -> JobType:
    if not handler.settings:
        return known
    # Only what was set: a default of the file's type must not hide a field of the decorator.
    own = known.model_dump(exclude_unset=True, exclude={"name"})
    try:
        return define(handler.name, merge_fields(handler.settings, own))
    except InvalidSettings as error:
        raise InvalidSettings(
            f"{_place(handler.function)}: {error} The decorator sets {_names(handler.settings)}; "
            f"the job type file sets {_names(own)}, and its value counts where both set one. "
            "Correct the field where it is set"
        ) from error


def _names(fields: Mapping[str, Any]) -> str:
    return ", ".join(sorted(fields))


def _with_settings(handler: Handler, settings: Mapping[str, Any]) -> Handler:
    """Return the handler with its decorator's type, or with the place of the missing queue."""
    place = _place(handler.function)
    lacks_queue = "queue" not in settings
    try:
        # Any other fault is a fault with every queue.
        job_type = define(handler.name, {"queue": "", **settings})
    except InvalidSettings as error:
        raise InvalidSettings(f"{place}: {error}") from error
    handler = replace(handler, settings=settings)
    if lacks_queue:
        return replace(handler, lacks_queue=place)
    return replace(handler, job_type=job_type)


def _inspect(name: str, function: Callable[..., Any]) -> Handler:
    parameters = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(parameters) not in (1, 2):
        msg = (
            f"handler {_origin(function)} must take (payload) or (payload, context), "
            f"got {len(parameters)} parameters"
        )
        raise InvalidSettings(msg)
    hints = typing.get_type_hints(function, localns={"JobContext": JobContext})
    annotation = hints.get(parameters[0].name)
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return Handler(
        name=name,
        function=function,
        payload_model=annotation if is_model else None,
        wants_context=len(parameters) == 2,  # noqa: PLR2004 - the two parameters named above
        is_async=inspect.iscoroutinefunction(function),
        job_type=None,
    )


registry: Final = Registry()
job = registry.job
