"""An import that only a type checker sees hides no cycle: a comment above it gives its reason."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_an_import_for_type_checkers_alone_gives_its_reason() -> None:
    silent = []
    for root in ("platform", "workers", "tasks", "ops"):
        for file in (ROOT / root).rglob("*.py"):
            lines = file.read_text("utf-8").splitlines()
            for before, line in pairwise(lines):
                if line.startswith("if TYPE_CHECKING") and not before.startswith("# "):
                    silent.append(str(file.relative_to(ROOT)))
    assert silent == []
