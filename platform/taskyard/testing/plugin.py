"""The pytest plugin with the fixtures of `taskyard.testing`.

pytest imports this module in every project of the environment. So the module imports nothing
itself, and has no effect on projects that do not use its fixtures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

# No cycle: pytest imports this file in every project, which would start later.
if TYPE_CHECKING:
    from taskyard.settings import Settings
    from taskyard.testing.yard import Yard

__all__ = ["taskyard_settings", "taskyard_yard"]


@pytest.fixture
def taskyard_settings() -> Settings:
    """Return the settings of `taskyard_yard`; override it to change limits or queues.

    Environment variables are not read, because a test must not depend on them.
    """
    from taskyard.settings import Settings  # noqa: PLC0415

    return Settings()


@pytest.fixture
def taskyard_yard(taskyard_settings: Settings) -> Iterator[Yard]:
    """Return a `Yard` for this test only, with the registered handlers."""
    from taskyard.testing.yard import Yard  # noqa: PLC0415

    with Yard(taskyard_settings) as yard:
        yield yard
