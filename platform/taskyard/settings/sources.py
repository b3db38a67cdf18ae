"""The sources of settings: defaults, then `taskyard.toml`, then `TASKYARD_*` variables."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from taskyard.errors import InvalidSettings
from taskyard.settings.model import Settings

__all__ = ["FILE_NAME", "PREFIX", "Loaded", "load"]

PREFIX: Final = "TASKYARD_"
FILE_NAME: Final = "taskyard.toml"
_NOT_FIELDS: Final = frozenset({"CONFIG"})


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, with the origin of every field: `default`, a file's or a variable's name."""

    settings: Settings
    origins: Mapping[str, str]


def load(environ: Mapping[str, str] | None = None, folder: Path | None = None) -> Loaded:
    """Read and validate the settings; raises `InvalidSettings` with field, value and source.

    The file is the one that `TASKYARD_CONFIG` names, else `taskyard.toml` in `folder` (default:
    the current one) if it exists.
    """
    environ = os.environ if environ is None else environ
    from_file, file_name = _from_file(environ, Path.cwd() if folder is None else folder)
    from_variables = _from_variables(environ)
    raw = {**from_file, **from_variables}
    origins = dict.fromkeys(Settings.model_fields, "default")
    origins |= dict.fromkeys(from_file, file_name)
    origins |= {name: PREFIX + name.upper() for name in from_variables}
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        raise InvalidSettings(_describe(error, origins)) from None
    return Loaded(settings, origins)


def _from_file(environ: Mapping[str, str], folder: Path) -> tuple[dict[str, Any], str]:
    named = environ.get(f"{PREFIX}CONFIG")
    path = folder / FILE_NAME if named is None else Path(named)
    if named is None and not path.exists():
        return {}, ""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidSettings(f"{path} cannot be read: {error}") from error
    for key in document:
        _check_known(key, str(path))
    if isinstance(document.get("job_types"), str):
        document["job_types"] = [document["job_types"]]
    return document, str(path)


def _from_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable.removeprefix(PREFIX) in _NOT_FIELDS:
            continue
        name = variable.removeprefix(PREFIX).lower()
        _check_known(name, variable)
        if value != "":
            found[name] = _spell(name, value, variable)
    return found


def _spell(name: str, value: str, variable: str) -> Any:
    if name == "job_types":
        return [part for part in value.split(os.pathsep) if part]
    if name == "queues":
        try:
            return json.loads(value)
        except json.JSONDecodeError as error:
            raise InvalidSettings(f"{variable} must be JSON such as {{...}}: {error}") from error
    return value


def _check_known(name: str, source: str) -> None:
    if name in Settings.model_fields:
        return
    near = difflib.get_close_matches(name, Settings.model_fields, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "see docs/settings.md"
    raise InvalidSettings(f"{source}: unknown setting {name!r}; {hint}")


def _describe(error: ValidationError, origins: Mapping[str, str]) -> str:
    lines = []
    for fault in error.errors(include_url=False)[:5]:
        field = ".".join(str(part) for part in fault["loc"])
        origin = origins.get(str(fault["loc"][0])) if fault["loc"] else None
        place = f"{field} (from {origin})" if origin else "settings"
        came = "" if not fault["loc"] else f", got: {fault['input']!r}"
        secret = field.endswith("_url") or field == "token"
        lines.append(
            f"{place}: {fault['msg'].removeprefix('Value error, ')}{'' if secret else came}"
        )
    return "\n".join(lines)
