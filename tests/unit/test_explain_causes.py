"""The table of causes is whole: texts, commands that the command line knows, and its page."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
from typer.exceptions import TyperException

from taskyard.control.explain import CAUSES, CauseKind, Meaning
from taskyard.control.explain.explanation import cause_of
from taskyard.control.explain.wording import moment_us
from taskyard.control.operator_reasons import check_reason
from taskyard.errors import InvalidReason
from taskyard.inspection.queue_of_job import start_worker
from taskyard.ops.cli.commands import COMMANDS
from taskyard.ops.cli.lazy_commands import Command, Noun, load
from taskyard.records.job_record import Record
from taskyard.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")
ODD = "it's; $(odd)"
STARTS = ("taskyard worker --pool exec", "celery -A APP worker -Q orders")


@pytest.mark.parametrize("queue", [ODD, "a b", "x; rm -r ~", "`id`"])
def test_the_command_that_starts_a_worker_quotes_the_queue_that_a_client_named(queue: str) -> None:
    app = shlex.split(start_worker(Settings(), queue))
    assert app == ["celery", "-A", "APP", "worker", "-Q", queue]
    assert start_worker(Settings(), "exec") == STARTS[0]


@pytest.mark.parametrize("digits", ["9" * 17, "9" * 5_000, "-1", "²"])
def test_a_number_that_is_no_time_is_taken_for_damaged(digits: str) -> None:
    assert Record("j1", {"due": digits}).number("due") == 0
    assert moment_us(Record("j1", {"due": "9" * 16}).number("due")).startswith("2286-")


def names_in(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def filled(meaning: Meaning, start: str = STARTS[0], value: object = ODD) -> dict[str, object]:
    texts = (meaning.text, meaning.waits, meaning.see, *meaning.commands)
    names = set().union(*map(names_in, texts))
    return {**dict.fromkeys(names, value), "start_worker": start}


def parse(line: str) -> dict[str, Any]:
    """What the command line reads in a command; raises what it would say of a wrong one."""
    program, first, *rest = shlex.split(line)
    assert program == "taskyard", line
    entry = COMMANDS[first]
    if isinstance(entry, Noun):
        verb, *rest = rest
        entry = entry.verbs[verb]
    assert isinstance(entry, Command)
    command = load(first, entry)
    return dict(
        command.make_context(line, list(rest), resilient_parsing=False, obj=Options()).params
    )


class Options:
    """Where a command notes that it answers in JSON."""

    json = False


def test_the_table_has_every_cause_in_the_order_in_which_causes_block() -> None:
    assert list(CAUSES) == list(CauseKind)


@pytest.mark.parametrize("kind", CauseKind)
def test_a_cause_has_a_command_that_moves_the_job_or_says_why_none_is_needed(
    kind: CauseKind,
) -> None:
    meaning = CAUSES[kind]
    assert meaning.commands or meaning.waits
    assert not meaning.text.endswith(".")
    assert not meaning.waits.endswith(".")


@pytest.mark.parametrize("kind", CauseKind)
def test_each_command_of_a_cause_is_one_that_the_command_line_takes(kind: CauseKind) -> None:
    meaning = CAUSES[kind]
    for start in STARTS:
        cause = cause_of(
            kind, filled(meaning, start, "queue:x" if "on" in names_of(meaning) else ODD)
        )
        for line in filter(None, (*cause.commands, cause.see)):
            if not line.startswith("celery "):
                parse(line)


def names_of(meaning: Meaning) -> set[str]:
    return set(filled(meaning))


def test_what_a_job_is_called_is_one_word_of_a_command() -> None:
    cause = cause_of(CauseKind.RUNNING, filled(CAUSES[CauseKind.RUNNING]))
    for line in cause.commands:
        assert shlex.split(line)[3] == ODD


def test_a_wrong_command_would_be_found() -> None:
    with pytest.raises(TyperException):
        parse("taskyard jobs cancel 1234567 --because why")


def test_a_reason_must_be_given_by_the_operator_and_not_by_the_text() -> None:
    lines = [line for meaning in CAUSES.values() for line in meaning.commands if "--reason" in line]
    assert len(lines) > 3
    for line in lines:
        with pytest.raises(InvalidReason):
            check_reason(re.findall(r'--reason "([^"]*)"', line)[0])


def test_the_page_lists_every_cause_with_its_commands() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (.+?) \| (.+?) \|$", PAGE, re.MULTILINE)
    documented = {kind: commands for kind, _, commands in rows if kind in set(CauseKind)}
    assert list(documented) == [kind.value for kind in CauseKind]
    for kind, commands in documented.items():
        meaning = CAUSES[CauseKind(kind)]
        shown = tuple(re.findall(r"`([^`]+)`", commands))
        assert shown == tuple(map(_as_on_the_page, meaning.commands)), kind


def _as_on_the_page(command: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: found[1].upper(), command).replace(
        "START_WORKER", "taskyard worker --pool QUEUE"
    )
