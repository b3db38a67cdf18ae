"""Refuse the credentials of an operator in the settings of a worker.

This file is separate because the command line and the worker itself both check, and neither imports
the other.
"""

from __future__ import annotations

from typing import Final

from taskyard.errors import InvalidSettings
from taskyard.settings.model import Settings

__all__ = ["refuse_operator_credentials"]

_CREDENTIALS: Final = ("token", "signing_key")


def refuse_operator_credentials(settings: Settings) -> None:
    """Raise `InvalidSettings` if a worker with these settings could act as an operator."""
    held = [name for name in _CREDENTIALS if getattr(settings, name) is not None]
    if held:
        variables = " and ".join(f"TASKYARD_{name.upper()}" for name in held)
        raise InvalidSettings(
            f"a worker must not hold an operator's credential, got: {', '.join(held)}. Its jobs "
            f"could act as the operator. Remove {variables} from the worker's environment, and "
            f"{' and '.join(held)} from the taskyard.toml that it reads"
        )
