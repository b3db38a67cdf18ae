"""What the product's own texts tell a reader to run, set, install or read does exist."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from taskyard.ops.cli.commands import COMMANDS
from taskyard.ops.cli.lazy_commands import Command, Noun, load
from taskyard.settings import Settings

ROOT = Path(__file__).parents[2]
SOURCES = [
    path for root in ("platform", "workers", "tasks", "ops") for path in (ROOT / root).rglob("*.py")
]
# Read by the settings' own loader and by the checkout's tests, which no settings object holds.
NO_FIELD = {"TASKYARD_CONFIG", "TASKYARD_HOME"}
# A sentence may go on after the word: "taskyard up", "taskyard jobs wait".
COMMAND = re.compile(r"\btaskyard ([a-z]+)(?: ([a-z]+)\b)?((?: --[a-z-]+)*)")


@cache
def texts() -> list[tuple[str, str]]:
    """Every string of the sources with its place; what an f-string fills in is a `?`."""
    return [found for path in SOURCES for found in _texts_of(path)]


def _texts_of(path: Path) -> Iterator[tuple[str, str]]:
    inside: set[int] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in node.values}
            yield (
                place,
                "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "?"
                    for part in node.values
                ),
            )
        elif isinstance(node, ast.Constant) and _is_text(node, inside):
            yield place, str(node.value)


def _is_text(node: ast.Constant, inside: set[int]) -> bool:
    return isinstance(node.value, str) and id(node) not in inside


def named(pattern: str) -> dict[str, str]:
    """What the pattern's group finds, with a place that has it."""
    return {name: place for place, text in texts() for name in re.findall(pattern, text)}


def test_every_command_that_a_text_names_exists_with_its_options() -> None:
    wrong = {}
    for place, text in texts():
        for noun, verb, options in COMMAND.findall(text):
            if noun in COMMANDS and not _exists(noun, verb, options.split()):
                wrong[f"taskyard {noun} {verb}{options}"] = place
            elif noun not in COMMANDS and re.search(rf"[:`] ?taskyard {noun}", text):
                wrong[f"taskyard {noun}"] = place
    assert wrong == {}


def _exists(noun: str, verb: str, options: list[str]) -> bool:
    entry = COMMANDS[noun]
    if isinstance(entry, Noun):
        return not verb or (verb in entry.verbs and _has(entry.verbs[verb], options))
    return _has(entry, options)


def _has(command: Command, options: list[str]) -> bool:
    """Whether it knows the options; one that passes on what it does not know may have any."""
    return command.passes_rest or set(options) <= {"--help", *_options(command.module)}


@cache
def _options(module: str) -> frozenset[str]:
    parameters = load("command", Command(module, "")).params
    return frozenset(option for parameter in parameters for option in parameter.opts)


def test_every_variable_that_a_text_names_is_a_setting() -> None:
    known = {f"TASKYARD_{name.upper()}" for name in Settings.model_fields} | NO_FIELD
    found = named(r"\b(TASKYARD_[A-Z_]*[A-Z])\b")
    assert {name: place for name, place in found.items() if name not in known} == {}


def test_every_extra_that_a_text_names_can_be_installed() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    found = named(r"taskyard\[([a-z]+)\]")
    assert set(found) <= set(document["project"]["optional-dependencies"]), found


def test_every_page_that_a_text_names_is_in_the_repository() -> None:
    found = named(r"\b(docs/[\w-]+\.md)\b")
    assert {name: place for name, place in found.items() if not (ROOT / name).is_file()} == {}
