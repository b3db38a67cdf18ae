"""The letter's tables, and the page that mirrors them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from taskyard.jobs import Category
from taskyard.jobs.letter_states import OPEN, OUTCOMES, LetterStatus, ReplayOutcome, first_status
from taskyard.jobs.replay_by_category import NEEDS, Needs, replay_eligible
from taskyard.jobs.states import TERMINAL, State

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "docs" / "states.md").read_text("utf-8").split("\n## Letters\n")[1]


def rows(heading: str) -> list[list[str]]:
    """The cells of the section's table whose first column has this heading."""
    after = SECTION.split(f"\n| {heading} |")[1].split("\n\n")[0]
    lines = after.splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_names_every_status_and_whether_it_is_open() -> None:
    written = {LetterStatus(name): kind for name, kind, _ in rows("Status")}
    assert written == {status: "open" if status in OPEN else "settled" for status in LetterStatus}


def test_the_page_has_the_outcome_of_every_end_that_proves_something() -> None:
    written = {State(ended): ReplayOutcome(said) for ended, said in rows("The replayed job became")}
    assert written == OUTCOMES
    assert set(OUTCOMES) <= TERMINAL | {State.DEAD_LETTERED}


def test_the_page_says_what_a_replay_of_each_category_needs() -> None:
    written = {Category(name): Needs(needed) for name, needed in rows("Category")}
    assert written == NEEDS


def test_every_category_is_in_the_table_and_every_need_is_used() -> None:
    assert set(NEEDS) == set(Category)
    assert set(NEEDS.values()) == set(Needs)


@pytest.mark.parametrize("category", Category)
def test_a_letter_is_born_eligible_only_if_a_replay_needs_nothing(category: Category) -> None:
    refused = {Category.UNDECODABLE, Category.VALIDATION_ERROR, Category.EXPIRED}
    assert replay_eligible(category) is (category not in refused)


def test_a_new_letter_is_open_and_an_escalated_one_waits_for_a_person() -> None:
    assert first_status(None) is LetterStatus.PENDING
    assert first_status("manual_review_queue") is LetterStatus.MANUAL_REVIEW


@pytest.mark.parametrize("word", [status.value for status in LetterStatus if status not in OPEN])
def test_only_the_table_spells_a_status(word: str) -> None:
    """Elsewhere a comparison with the word would be a second list; job states share two words."""
    if word in set(State):
        return
    spelled = [
        file.relative_to(ROOT)
        for root in ("platform", "workers", "tasks", "ops")
        for file in (ROOT / root).rglob("*.py")
        if re.search(rf'(=|\bin) *\(?"{word}"', file.read_text("utf-8"))
    ]
    assert spelled == [Path("platform/taskyard/jobs/letter_states.py")]
