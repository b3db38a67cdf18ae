"""At a terminal lines break between words, and what is wrapped is indented under its first line."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import pytest
from rich.text import Text

from taskyard.ops.cli import console
from taskyard.ops.cli.checks.check_command import print_finding
from taskyard.ops.cli.checks.finding import Finding

WIDTH = 60
CAUSE = "exception: the card of the customer was refused by the bank, which gave no reason for it"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def at_terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Terminal]:
    """Called by the test itself: between set-up and test pytest puts its own streams back."""
    return partial(_open_terminal, monkeypatch)


def _open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    screen = Terminal()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", screen)
    for name, value in {"TERM": "xterm", "NO_COLOR": "1", "COLUMNS": str(WIDTH)}.items():
        monkeypatch.setenv(name, value)
    return screen


def lines(terminal: Terminal) -> list[str]:
    return [line.rstrip() for line in Text.from_ansi(terminal.getvalue()).plain.splitlines()]


def test_a_cause_below_its_row_is_indented_on_each_of_its_lines(
    at_terminal: Callable[[], Terminal],
) -> None:
    terminal = at_terminal()
    console.put(console.with_sentences(("id", "cause"), [("a1b2", CAUSE)]))

    below = lines(terminal)[2:]
    assert len(below) > 1
    assert all(line.startswith("  ") and len(line) <= WIDTH for line in below)
    assert " ".join(line.strip() for line in below) == CAUSE


@pytest.mark.parametrize("write", [console.note, console.print_error])
def test_a_sentence_breaks_between_words_and_ends_with_its_whole_command(
    at_terminal: Callable[[], Terminal], write: object
) -> None:
    terminal = at_terminal()
    command = "Run: taskyard worker --pool exec --concurrency 4 --hostname exec@one --loglevel INFO"
    assert callable(write)
    write(f"{CAUSE}. {command}")

    first, *others, last = lines(terminal)
    assert last == f"  {command}"
    assert all(line.startswith("  ") and len(line) <= WIDTH for line in others)
    said = " ".join([first, *(line.strip() for line in others)])
    assert said.removeprefix("error: ") == f"{CAUSE}."


def test_a_list_of_faults_keeps_its_lines_and_their_indents(
    at_terminal: Callable[[], Terminal],
) -> None:
    terminal = at_terminal()
    console.print_error(f"two faults:\n  {CAUSE}\n  short")

    first, *others, last = lines(terminal)
    assert (first, last) == ("error: two faults:", "  short")
    assert others[0].startswith("  exception")
    assert all(line.startswith("    ") for line in others[1:])


def test_what_fits_stays_on_its_line(at_terminal: Callable[[], Terminal]) -> None:
    terminal = at_terminal()
    console.print_error("there is no job. See: taskyard jobs list")

    assert lines(terminal) == ["error: there is no job. See: taskyard jobs list"]


def test_a_part_of_an_answer_stays_under_its_column_and_no_word_is_broken(
    at_terminal: Callable[[], Terminal],
) -> None:
    terminal = at_terminal()
    url = "redis://" + "cache-of-the-shop." * 4 + "example:6379/0"
    command = "taskyard worker --pool exec --concurrency 4 --hostname exec@one --loglevel INFO"
    console.print_sentence(Text(f"! Redis      {CAUSE}: {url}. Run: {command}"), indent=13)

    first, *others, last = lines(terminal)
    assert first.startswith("! Redis      exception: the card")
    assert last == f"{' ' * 13}Run: {command}"
    assert others[-1] == f"{' ' * 13}{url}."
    assert all(line.startswith(" " * 13) and len(line) <= WIDTH for line in others[:-1])
    said = " ".join([first[13:], *(line.strip() for line in others)])
    assert said == f"{CAUSE}: {url}."


def test_a_finding_of_check_is_a_column_of_its_own(at_terminal: Callable[[], Terminal]) -> None:
    terminal = at_terminal()
    print_finding(Finding.warning("handlers", CAUSE, "Ask the bank."))

    first, *others = lines(terminal)
    assert first.startswith("! handlers   exception: ")
    assert all(line.startswith(" " * 13) and len(line) <= WIDTH for line in [*others])
    assert " ".join([first[13:], *(line.strip() for line in others)]) == f"{CAUSE}. Ask the bank."


def test_a_command_among_facts_has_one_line_and_sentences_wrap_beside_it(
    at_terminal: Callable[[], Terminal],
) -> None:
    terminal = at_terminal()
    command = (
        'taskyard dlq replay 0123456789abcdef --reason "why it will work now" --payload @c.json'
    )
    console.put_facts(
        [
            ("letter", "a1b2"),
            ("nothing", None),
            ("cause", CAUSE),
            ("next", console.Command(command)),
        ]
    )

    first, cause, *others, last = lines(terminal)
    assert first == "letter  a1b2"
    assert cause.startswith("cause   exception")
    assert all(line.startswith(" " * 8) and len(line) <= WIDTH for line in others)
    assert last == f"next    {command}"
