"""One line of an error's many: the one that a reader of a list needs."""

from __future__ import annotations

import pytest

from taskyard.ops.cli.summary_line import LONGEST, summary_line

TRACE = """Traceback (most recent call last):
  File "shop.py", line 3, in pay
    charge(card)
    ~~~~~~^^^^^^
{end}"""
CHAIN = "\n\nDuring handling of the above exception, another exception occurred:\n\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ""),
        ("timed out\n", "timed out"),
        (TRACE.format(end="ValueError: no such card"), "ValueError: no such card"),
        (TRACE.format(end="shop.Refused: no\n  reason: old"), "shop.Refused: no reason: old"),
        (
            TRACE.format(end="KeyError: 'card'") + CHAIN + TRACE.format(end="RuntimeError: no"),
            "RuntimeError: no",
        ),
        (f"the task failed:\n{TRACE.format(end='ValueError: deep')}", "ValueError: deep"),
        (
            "1 validation error for Order\ncents\n  Field required [type=missing]",
            "1 validation error for Order cents Field required [type=missing]",
        ),
        (
            "Traceback (most recent call last):\n  File 'cut off",
            "Traceback (most recent call last): File 'cut off",
        ),
    ],
)
def test_a_text_says_what_it_means_in_one_line(text: str, said: str) -> None:
    assert summary_line(text) == said


def test_many_lines_are_cut_and_one_is_not() -> None:
    assert len(summary_line("a\n" + "b" * 1000)) == LONGEST
    assert summary_line("a\n" + "b" * 1000).endswith("…")
    assert summary_line("b" * 1000) == "b" * 1000
