"""docs/switches.md names what workers, verbs and the relay log about switches."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "switches.md"
PLATFORM = ROOT / "platform" / "taskyard"
LOGGING = (
    "control/turn_switch.py",
    "engine/held_queues.py",
    "engine/hold_queues_bootstep.py",
    "engine/switch_reader.py",
    "relay/keep_switches.py",
)
# Of the publications of an attempt only the one into the delay store is about switches.
PARKED = "message_parked"


def test_the_page_lists_every_action_of_a_log_line_about_switches() -> None:
    section = PAGE.read_text().partition("## What the logs say")[2].partition("\n## ")[0]
    rows = [line.split(" | ")[0] for line in section.splitlines() if line.startswith("| `")]
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    text = "".join((PLATFORM / file).read_text() for file in LOGGING)
    logged = set(re.findall(r'(?:"action": |action=)"(\w+)"', text))
    assert PARKED in (PLATFORM / "engine/pending_publications.py").read_text()
    assert listed == {*logged, PARKED}
