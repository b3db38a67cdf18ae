"""What jobs and operators wrote cannot steer a terminal, and is still there to be read."""

from __future__ import annotations

import io
import json
import logging
import unicodedata

import pytest
from rich.text import Text

from taskyard.ops.cli import console
from taskyard.ops.cli.error_output import Switches, report_failure
from taskyard.ops.cli.visible_text import clean, json_text, one_line

STEERING = {
    "a screen that is wiped": ("\x1b[2J", r"\x1b[2J"),
    "a title that is set": ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
    "a NUL": ("\x00", r"\x00"),
    "a line that is overwritten": ("\r", r"\x0d"),
    "a letter that is taken back": ("\b", r"\x08"),
    "a DEL": ("\x7f", r"\x7f"),
    "a C1 control sequence": ("\x9b31m", r"\x9b31m"),
    "a C1 next line": ("\x85", r"\x85"),
    "writing from the right": ("\u202e", r"\u202e"),
    "an isolate": ("\u2066", r"\u2066"),
    "an Arabic letter mark": ("\u061c", r"\u061c"),
    "a space of no width": ("\u200b", r"\u200b"),
    "a line separator": ("\u2028", r"\u2028"),
    "a tag nobody sees": ("\U000e0041", r"\U000e0041"),
    "half of a pair": ("\ud800", r"\ud800"),
}
HARMLESS = "Überprüfung, ürün, 注文, سلام, می‌خواهم, 👩‍💻\tand\na line"


@pytest.mark.parametrize(("raw", "shown"), STEERING.values(), ids=STEERING)
def test_text_shows_it_as_an_escape(raw: str, shown: str) -> None:
    assert clean(f"a{raw}b") == f"a{shown}b"


@pytest.mark.parametrize("raw", [raw for raw, _ in STEERING.values()], ids=STEERING)
def test_json_escapes_it_and_still_means_the_same(raw: str) -> None:
    text = json_text({"note": f"a{raw}b", f"k{raw}": 1})

    assert json.loads(text) == {"note": f"a{raw}b", f"k{raw}": 1}
    assert raw not in text
    assert "\\u" in text or "\\b" in text or "\\r" in text


def test_every_control_and_every_format_character_but_the_joiners_is_escaped() -> None:
    kept = {"\t", "\n", "\u200c", "\u200d"}
    # Marks that belong to a script's words, not to its direction: they are drawn.
    drawn = {"Cf": lambda char: 0x600 <= ord(char) <= 0x8E2 and char != "\u061c"}

    for code in [*range(0x3000), *range(0xFE00, 0x10000), *range(0xE0000, 0xE0080)]:
        char = chr(code)
        kind = unicodedata.category(char)
        if char in kept or drawn.get(kind, lambda _: False)(char):
            assert clean(char) == char
        elif kind in {"Cc", "Cf", "Zl", "Zp"}:
            assert clean(char) != char, hex(code)


def test_what_is_only_foreign_stays_as_it_is() -> None:
    assert clean(HARMLESS) == HARMLESS
    assert "注文" in json_text(HARMLESS)


def test_a_line_stays_one_line() -> None:
    assert one_line("a\nerror: b\r\n\x1b[1A c") == r"a error: b \x1b[1A c"


def test_no_cell_of_a_table_or_grid_is_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    for raw, _ in STEERING.values():
        console.put(console.table(("id", "cause"), [(f"a{raw}", f"b{raw}\nc")]))
        console.put_facts([("cause", f"b{raw}"), ("next", console.Command(f"c{raw}"))])
        console.put(console.with_sentences(("id", "cause"), [(f"a{raw}", f"b{raw}")]))
        console.say(f"c{raw}")
        console.note(f"d{raw}")
        console.print_error(f"e{raw}")
        console.print_json({"f": raw})

    output = capsys.readouterr()
    assert not [raw for raw, _ in STEERING.values() if raw in output.out + output.err]


@pytest.mark.parametrize("switches", [Switches(), Switches(json=True), Switches(traceback=True)])
def test_no_failure_is_obeyed(switches: Switches, capsys: pytest.CaptureFixture[str]) -> None:
    report_failure(RuntimeError("\x1b[2J\u202egone"), switches)

    output = capsys.readouterr()
    assert not {"\x1b", "\u202e"} & set(output.out + output.err)
    assert r"\x1b[2J\u202egone" in output.err


def test_no_line_of_a_log_is_obeyed() -> None:
    from taskyard.ops.cli.daemon import _Visible  # noqa: PLC0415 - nobody else needs it

    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Visible("%(message)s"))
    handler.emit(logging.makeLogRecord({"msg": "job %s failed", "args": ("\x1b[2J",)}))

    assert stream.getvalue() == "job \\x1b[2J failed\n"


def test_a_style_of_ours_survives() -> None:
    assert console._cell(Text("applied", style="green")).style == "green"
