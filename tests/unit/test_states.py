"""The state table, and the page that mirrors it."""

from __future__ import annotations

import re
from pathlib import Path

from taskyard.jobs.states import (
    CELERY_NAMES,
    LIVE,
    TERMINAL,
    TRANSITIONS,
    Event,
    State,
)

PAGE = (Path(__file__).parents[2] / "docs" / "states.md").read_text("utf-8")


def rows(heading: str) -> list[list[str]]:
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_has_exactly_the_arrows_of_the_table() -> None:
    written = [(State(source), Event(event), State(to)) for source, event, to in rows("Arrows")]
    assert len(written) == len(set(written)), "an arrow stands twice on the page"
    assert set(written) == {(source, event, to) for (source, event), to in TRANSITIONS.items()}


def test_the_diagram_has_exactly_the_arrows_of_the_table() -> None:
    diagram = PAGE.split("```mermaid\n")[1].split("```")[0]
    drawn = {
        (State(source), Event(event), State(to))
        for source, to, events in re.findall(r"(\w+) --> (\w+): (.+)", diagram)
        for event in events.split(", ")
    }
    assert drawn == {(source, event, to) for (source, event), to in TRANSITIONS.items()}


def test_the_page_names_every_state_with_its_kind_and_its_celery_name() -> None:
    kinds = {
        state: "terminal" if state in TERMINAL else "live" if state in LIVE else "absent"
        for state in State
    }
    written = {State(name): (kind, celery) for name, kind, _, celery in rows("States")}
    assert written == {state: (kinds[state], CELERY_NAMES[state]) for state in State}


def test_the_page_says_in_one_sentence_who_causes_each_event() -> None:
    written = {Event(name): sentence for name, sentence in rows("Events")}
    assert set(written) == set(Event)
    for event, sentence in written.items():
        assert re.fullmatch(r"[A-Z][^.]+\.", sentence), f"{event}: {sentence!r} is not one sentence"


def test_every_state_is_absent_live_or_terminal() -> None:
    assert {State.NONE} | LIVE | TERMINAL == set(State)
    assert not LIVE & TERMINAL
    assert State.NONE not in LIVE | TERMINAL


def test_every_state_and_every_event_is_used() -> None:
    assert {event for _, event in TRANSITIONS} == set(Event)
    assert set(TRANSITIONS.values()) == set(State) - {State.NONE}


def test_every_live_state_can_reach_an_end() -> None:
    for start in LIVE:
        reached, frontier = {start}, {start}
        while frontier:
            frontier = {
                to for (source, _), to in TRANSITIONS.items() if source in frontier
            } - reached
            reached |= frontier
        assert reached & TERMINAL, f"{start} leads nowhere"


def test_an_ended_job_takes_only_a_repeated_cancel_or_an_undelete() -> None:
    taken = {(state, event) for state, event in TRANSITIONS if state in TERMINAL}
    assert taken == {(State.FAILED, Event.UNDELETE), (State.CANCELLED, Event.CANCEL)}


def test_only_running_jobs_have_an_attempt_to_finish_or_to_give_up() -> None:
    ends = {Event.COMPLETE, Event.RETRY, Event.RELEASE, Event.LOSE}
    assert {state for state, event in TRANSITIONS if event in ends} == {State.RUNNING}
