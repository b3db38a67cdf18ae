"""Log messages and errors use literal words: these words were replaced and must not return."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [path for name in ("platform", "ops", "workers") for path in (ROOT / name).rglob("*.py")]
LOGGED = {"debug", "info", "warning", "error", "exception", "critical", "log"}
# Word -> what to write instead.
REPLACED = {
    r"\btold\b|\btells\b": "shows, says, reports",
    r"\bnobody\b": "no worker, no operator",
    r"\bnowhere\b": "was not found anywhere",
    r"\b(is|are) away\b": "does not answer",
    r"\b(is|are) gone\b": "is dead, is missing, was deleted, has expired",
    r"\blies\b|\blie between\b": "is at, must be from ... to",
    r"\bstands still\b": "waits",
    r"\bfate\b": "outcome",
    r"\byards\b": "installations",
    r"\blast words\b": "last output",
    r"\bcondemned?\b|\bburied\b|\bheir\b|\bwitness(ed)?\b": "dead-letter, successor, record",
    r"\bfor want of\b": "because ... is low, without",
    r"\bin (the|no worker's) hands\b": "held by a worker",
    r"\bcomes? to rest\b": "ends",
}


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(
            _text(part) if isinstance(part, ast.Constant) else "?" for part in node.values
        )
    return ""


def _read_texts() -> Iterator[tuple[str, str]]:
    """(place, text) of every log message and of every text in a raised error."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Raise):
                texts = [_text(part) for part in ast.walk(node)]
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in LOGGED:
                texts = [_text(argument) for argument in node.args]
            else:
                continue
            place = f"{path.relative_to(ROOT)}:{node.lineno}"
            yield from ((place, text) for text in texts if " " in text)


@cache
def _texts() -> list[tuple[str, str]]:
    return list(_read_texts())


def test_log_messages_and_errors_are_found() -> None:
    assert len(_texts()) > 200


@pytest.mark.parametrize(("word", "instead"), REPLACED.items())
def test_a_replaced_word_is_in_no_log_message_and_in_no_error(word: str, instead: str) -> None:
    found = [f"{place}: {text}" for place, text in _texts() if re.search(word, text, re.IGNORECASE)]
    assert found == [], f"write instead: {instead}"


def test_a_replaced_word_is_on_no_page() -> None:
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"]
    found = [
        f"{page.name}: {match[0]!r}; write instead: {instead}"
        for page in pages
        for word, instead in REPLACED.items()
        for match in re.finditer(word, page.read_text("utf-8"), re.IGNORECASE)
    ]
    assert found == []
