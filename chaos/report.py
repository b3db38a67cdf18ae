"""build/chaos.json, and the table of docs/reliability.md.

Results of an earlier version may lack a number: it counts as unknown, not as broken.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from chaos.setups import SETUPS
from chaos.storms import STORMS
from chaos.stranded import GOES_ON_S

__all__ = ["failed", "put", "read_json", "said", "table", "write_json", "write_table"]

_MARK: Final = re.compile(r"(<!-- storms -->\n).*?(<!-- /storms -->)", re.DOTALL)
_COLUMNS: Final = (
    "storm",
    "setup",
    "jobs",
    "faults",
    "lost",
    "doubled",
    "doubled_without_inbox",
    "lost_in_pop",
    "stranded",
    "named",
    "ended_by_itself",
    "letters_without_row",
    "requests",
    "flips",
    "flips_back_s",
    "contradictions",
    "poison",
    "recovery_s",
    "back_s",
    "calm_s",
)


_MUST_BE_0: Final = (
    "lost",
    "doubled",
    "letters_without_row",
    "ended_by_itself",
    "unnamed",
    "contradictions",
)


def failed(result: dict[str, Any]) -> bool:
    """Whether a storm's result breaks a promise; a storm that was skipped shows nothing."""
    if result["skipped"]:
        return False
    return (
        any(result.get(name) for name in _MUST_BE_0)
        or result["poison"] != result["poison_exact"]
        or (result["recovery_s"] or 0.0) > GOES_ON_S
        # What kombu's transport holds for a dead worker waits for the visibility timeout.
        or (bool(result.get("stranded")) and not SETUPS[result["setup"]].loses_pops)
    )


def write_json(file: Path, results: Sequence[dict[str, Any]]) -> None:
    """Everything, for machines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"storms": list(results)}, indent=2) + "\n")


def read_json(file: Path) -> list[dict[str, Any]]:
    """The results of an earlier run, none if there was none."""
    return list(json.loads(file.read_text())["storms"]) if file.exists() else []


def put(results: Sequence[dict[str, Any]], one: dict[str, Any]) -> list[dict[str, Any]]:
    """The results with `one` in the place of its storm's and broker's earlier one, in order."""
    known = {_key(result): result for result in (*results, one)}
    return [known[key] for key in sorted(known)]


def _key(result: dict[str, Any]) -> tuple[int, int]:
    return list(STORMS).index(result["storm"]), list(SETUPS).index(result["setup"])


def said(results: Sequence[dict[str, Any]]) -> str:
    """What was run, from the results themselves: runs of different sizes are each told."""
    sizes = Counter(
        (result["jobs"], result["setup"], result["rate"], result["seed"])
        for result in results
        if not result["skipped"]
    )
    runs = [
        f"{count} storms of {jobs:,} jobs over {setup} at {rate:g} a second, seed {seed}"
        for (jobs, setup, rate, seed), count in sizes.most_common()
    ]
    return (
        f"{'; '.join(runs)}. Two workers of two processes each, on two cores with everything else."
    )


def table(results: Sequence[dict[str, Any]]) -> str:
    """The numbers as a Markdown table; a storm that was skipped says why."""
    lines = [" | ".join(_COLUMNS), " | ".join("---" for _ in _COLUMNS)]
    for result in results:
        cells = [_cell(result, name) for name in _COLUMNS]
        if result["skipped"]:
            cells[2:] = [f"skipped: {result['skipped']}", *[""] * (len(_COLUMNS) - 3)]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def _cell(result: dict[str, Any], name: str) -> str:
    if name == "poison" and not result["skipped"]:
        return f"{result['poison']}/{result['poison_exact']}"
    if name == "named" and "left_behind" in result:
        named = result["left_behind"] - result["unnamed"]
        return f"{named}/{result['left_behind']}" if result["left_behind"] else "-"
    value = result.get(name)
    return "-" if value is None else str(value)


def write_table(page: Path, results: Sequence[dict[str, Any]]) -> None:
    """Replace the page's table, with what was run in front of it."""
    whole, made_of = page.read_text("utf-8"), f"{said(results)}\n\n{table(results)}"
    made = _MARK.sub(lambda found: f"{found[1]}{made_of}{found[2]}", whole)
    page.write_text(made, "utf-8")
