"""Characters that steer whoever shows a text."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from taskyard.wire.control_characters import STEERING, escaped

KEPT = "\t\n\u200c\u200d"
TURNING = {"RLO", "LRO", "RLE", "LRE", "PDF", "RLI", "LRI", "FSI", "PDI"}


@given(st.characters())
def test_controls_turns_of_direction_and_surrogates_steer_and_nothing_that_is_seen_does(
    char: str,
) -> None:
    kind = unicodedata.category(char)
    if char in KEPT or kind[0] in "LNPSM":
        assert not STEERING.search(char)
    elif kind in ("Cc", "Cs") or unicodedata.bidirectional(char) in TURNING:
        assert STEERING.search(char)


@given(st.text(st.characters()))
def test_an_escaped_text_steers_nobody_and_can_be_stored(text: str) -> None:
    shown = escaped(text)
    assert not STEERING.search(shown)
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert escaped(shown) == shown


def test_an_escape_is_what_python_writes() -> None:
    assert escaped("\x1b[2J \u202e \U000e0001 \ud800 ok\n") == (
        "\\x1b[2J \\u202e \\U000e0001 \\ud800 ok\n"
    )
