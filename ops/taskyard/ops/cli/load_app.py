"""Import the Celery app that a person names, or explain which step failed."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, Final

from celery import Celery
from celery.app.utils import find_app

from taskyard.errors import InvalidSettings

__all__ = ["load_app"]

_LIBRARIES: Final = tuple(
    Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib", "purelib", "platlib")
)
_LONGEST: Final = 500
_EXPECTED: Final = "Expected a module and the app in it, as for `celery -A`, such as myapp:celery"


def load_app(name: str) -> Celery:
    """Return the app that `celery -A` would find, configured.

    Raises `InvalidSettings` with the cause.

    Its texts distinguish a missing module, a module that fails while it is imported, a name that is
    not in it or is not an app, and an app whose own settings cannot be loaded.
    """
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found = _find(name)
        if not isinstance(found, Celery):
            raise InvalidSettings(_no_app(name, found))
        _load_settings(name, found)
    finally:
        if here in sys.path:
            sys.path.remove(here)
    return found


def _find(name: str) -> Any:
    try:
        return find_app(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an app's module may raise any error
        cause = _hidden(name) or _first(name, error)
        raise InvalidSettings(_why(name, cause)) from cause


def _first(name: str, error: BaseException) -> BaseException:
    """Return the original error, which Celery hides in two ways.

    For a missing attribute, Celery tries to import the attribute as a module, which raises a second
    error. For a ValueError, Celery puts its own text before the error's text.
    """
    again = isinstance(error, ModuleNotFoundError) and error.name == name and ":" in name
    reworded = isinstance(error, ValueError) and str(error).startswith("Couldn't import ")
    return (error.__context__ or error) if again or reworded else error


def _load_settings(name: str, app: Celery) -> None:
    """Load settings and tasks as a worker does; an app loads them at first use, not at its import.

    A worker also imports the modules of `include`, `imports` and `autodiscover_tasks`.
    """
    try:
        _ = app.conf.broker_url
        app.loader.import_default_modules()
        _ = app.tasks
    except (Exception, SystemExit) as error:
        raise InvalidSettings(
            f"the app of {name!r} exists, but its settings or tasks cannot be loaded: "
            f"{_cause(name, error)}. Expected an app with which a worker can start. Correct it, "
            f"then run again: taskyard check {name}"
        ) from error


def _hidden(name: str) -> BaseException | None:
    """Return why `shop.celery` cannot be imported; Celery would only say that `shop` has no app."""
    module = sys.modules.get(name)
    if not hasattr(module, "__path__"):
        return None
    try:
        import_module(f"{name}.celery")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - as above
        absent = isinstance(error, ModuleNotFoundError) and error.name == f"{name}.celery"
        return None if absent else error
    return None


def _why(name: str, error: BaseException) -> str:
    module = _module(name)
    if isinstance(error, ModuleNotFoundError) and _is_within(module, error.name):
        parent, _, last = module.rpartition(".")
        # Celery accepts myapp.celery for myapp:celery.
        if parent in sys.modules and ":" not in name:
            return _no_attribute(f"{parent}:{last}")
        return (
            f"there is no module {error.name!r} in {Path.cwd()} or on Python's path. "
            f"{_EXPECTED}. Run it in the folder that holds the module, or set PYTHONPATH: "
            f"taskyard check {name}"
        )
    if isinstance(error, AttributeError) and _frame(name, error) is None:
        return _no_attribute(name)
    return (
        f"the module {module!r} exists, but importing it failed: {_cause(name, error)}. Expected "
        f"a module that a worker can import. Correct it, then run again: "
        f"taskyard check {name}"
    )


def _module(name: str) -> str:
    """Return the module's name; a name without a colon may be a module as a whole."""
    return name.partition(":")[0]


def _is_within(module: str, absent: str | None) -> bool:
    """Return whether the missing module is the requested one or a package above it."""
    return absent is not None and f"{module}.".startswith(f"{absent}.")


def _no_attribute(name: str) -> str:
    module, _, attribute = name.partition(":")
    has = f"has no {attribute!r}" if attribute else "has neither an `app` nor a `celery`"
    return f"the module {module!r} exists, but {has}. {_EXPECTED}. {_instead(module)}"


def _no_app(name: str, found: object) -> str:
    kind = type(found).__name__
    return f"{name!r} is not a Celery app, got: {kind}. {_EXPECTED}. {_instead(_module(name))}"


def _instead(module: str) -> str:
    """Return the next command, with the apps that the module has."""
    known = vars(sys.modules[module]) if module in sys.modules else {}
    apps = [name for name, value in known.items() if isinstance(value, Celery)]
    if not apps:
        return "The module has no app; name the module that has one: taskyard check MODULE:APP"
    return "Run: " + " or ".join(f"taskyard check {module}:{name}" for name in apps)


def _cause(name: str, error: BaseException) -> str:
    """Return class and text of an exception, and where in the user's own files it was raised."""
    text = error.msg if isinstance(error, SyntaxError) else error
    words = " ".join(str(text).split())[:_LONGEST]
    said = f"{type(error).__name__}: {words}" if words else type(error).__name__
    place = _place(name, error)
    return f"{said} ({place})" if place else said


def _place(name: str, error: BaseException) -> str | None:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_shown(error.filename)}, line {error.lineno}"
    found = _frame(name, error)
    if found is None:
        return None
    frame, line = found
    return f"{_shown(frame.f_code.co_filename)}, line {line}"


def _frame(name: str, error: BaseException) -> tuple[FrameType, int] | None:
    """Return the last frame in the user's files; frames of libraries do not show what to repair.

    An installed module counts as the user's if it is of the package that was named.
    """
    package = name.partition(":")[0].partition(".")[0]
    own = [
        (frame, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if _is_own(frame, package)
    ]
    return own[-1] if own else None


def _is_own(frame: FrameType, package: str) -> bool:
    top = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    if top == package:
        return True
    file = frame.f_code.co_filename
    return (
        top != "taskyard"
        and not file.startswith("<")
        and not any(Path(file).is_relative_to(folder) for folder in _LIBRARIES)
    )


def _shown(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
