"""build/chaos.json, and the table of docs/reliability.md."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

__all__ = ["put", "read_json", "table", "write_json", "write_table"]

_MARK: Final = re.compile(r"(<!-- storms -->\n).*?(<!-- /storms -->)", re.DOTALL)
_COLUMNS: Final = (
    "storm",
    "broker",
    "jobs",
    "faults",
    "lost",
    "doubled",
    "doubled_without_inbox",
    "letters_without_row",
    "recovery_s",
    "calm_s",
)


def write_json(file: Path, seed: int, results: Sequence[dict[str, Any]]) -> None:
    """Everything, for machines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"seed": seed, "storms": list(results)}, indent=2) + "\n")


def read_json(file: Path) -> list[dict[str, Any]]:
    """The results of an earlier run, none if there was none."""
    return list(json.loads(file.read_text())["storms"]) if file.exists() else []


def put(results: Sequence[dict[str, Any]], one: dict[str, Any]) -> list[dict[str, Any]]:
    """The results with `one` in the place of its storm's and broker's earlier one."""
    key = (one["storm"], one["broker"])
    keys = [(result["storm"], result["broker"]) for result in results]
    if key not in keys:
        return [*results, one]
    return [one if known == key else old for known, old in zip(keys, results, strict=True)]


def table(results: Sequence[dict[str, Any]]) -> str:
    """The numbers as a Markdown table; a storm that was skipped says why."""
    lines = [" | ".join(_COLUMNS), " | ".join("---" for _ in _COLUMNS)]
    for result in results:
        cells = [str(result.get(name, "")) for name in _COLUMNS]
        if result["skipped"]:
            cells[2:] = [f"skipped: {result['skipped']}", *[""] * (len(_COLUMNS) - 3)]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def write_table(page: Path, results: Sequence[dict[str, Any]], said: str) -> None:
    """Replace the page's table, with what was run in front of it."""
    whole = page.read_text("utf-8")
    made = _MARK.sub(lambda found: f"{found[1]}{said}\n\n{table(results)}{found[2]}", whole)
    page.write_text(made, "utf-8")
