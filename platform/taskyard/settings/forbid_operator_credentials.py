"""Refuse the credentials of an operator in the settings or the environment of a daemon.

This file is separate because the command line and the worker itself both check, and neither imports
the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from taskyard.errors import InvalidSettings
from taskyard.settings.model import Settings

__all__ = ["refuse_operator_credentials"]

_CREDENTIALS: Final = ("token", "signing_key")


def refuse_operator_credentials(
    settings: Settings, environ: Mapping[str, str], daemon: str = "worker"
) -> None:
    """Raise `InvalidSettings` if a daemon with these settings could act as an operator.

    An app may give its settings itself, so the environment is looked at too: a job can read it.
    """
    held = [name for name in _CREDENTIALS if _holds(settings, environ, name)]
    if held:
        variables = " and ".join(f"TASKYARD_{name.upper()}" for name in held)
        why = "Its jobs could act as the operator" if daemon == "worker" else "It needs none"
        raise InvalidSettings(
            f"a {daemon} must not hold an operator's credential, got: {', '.join(held)}. "
            f"{why}. Remove {variables} from the {daemon}'s environment, and "
            f"{' and '.join(held)} from the taskyard.toml that it reads"
        )


def _holds(settings: Settings, environ: Mapping[str, str], name: str) -> bool:
    variable = environ.get(f"TASKYARD_{name.upper()}", "")
    return getattr(settings, name) is not None or variable != ""
