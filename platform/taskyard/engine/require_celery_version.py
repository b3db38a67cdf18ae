"""The oldest Celery that Taskyard runs on, checked before any import from Celery.

Alone because an older Celery fails at the imports of the modules that would ask.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import Final

from taskyard.errors import UnsupportedCelery

__all__ = ["OLDEST", "check_celery"]

# pyproject.toml requires the same; a test compares the two.
OLDEST: Final = (5, 7)


def check_celery(found: str | None = None) -> None:
    """Raise `UnsupportedCelery` for a version before `OLDEST`, by default the installed one."""
    given = version("celery") if found is None else found
    parts = tuple(int(part) for part in re.findall(r"\d+", given)[:2])
    if parts < OLDEST:
        oldest = ".".join(str(part) for part in OLDEST)
        raise UnsupportedCelery(
            f"Taskyard needs Celery {oldest}, and {given} is installed. "
            f"Run: pip install 'celery~={oldest}.0'"
        )
