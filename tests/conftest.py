"""The guard of the folders, and after it the fixtures (support/fixtures.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE_ROOTS = ("platform", "workers", "tasks", "ops")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to start where a package file would break the namespace or the standard library."""
    folders = [Path(root) / part for root in SOURCE_ROOTS for part in ("", "taskyard")]
    found = [
        str(folder / "__init__.py")
        for folder in folders
        if (ROOT / folder / "__init__.py").exists()
    ]
    if found:
        raise pytest.UsageError(
            f"delete {', '.join(found)}: platform/, workers/, tasks/ and ops/ are source roots of "
            "one namespace package. An __init__.py there hides the other roots, and in platform/ "
            "it breaks the standard library"
        )
    # Not imported above: with such a file the fixtures' own imports fail, less clearly.
    config.pluginmanager.import_plugin("support.fixtures")
