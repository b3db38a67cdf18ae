"""Read Gherkin text into scenarios: outlines expanded, backgrounds added, lines kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gherkin.errors import CompositeParserException, ParserError
from gherkin.parser import Parser
from gherkin.pickles.compiler import Compiler

from taskyard.errors import CodedError

__all__ = ["Feature", "GherkinStep", "Scenario", "read_feature"]


@dataclass(frozen=True, slots=True)
class GherkinStep:
    """One step as the author wrote it: its line counts from 1; `table` holds rows of cells."""

    line: int
    text: str
    table: tuple[tuple[str, ...], ...] = ()
    doc_string: str | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario, or one example row of an outline."""

    name: str
    line: int
    tags: tuple[str, ...]
    steps: tuple[GherkinStep, ...]


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature file; `language` is the language of its keywords."""

    name: str
    language: str
    scenarios: tuple[Scenario, ...]


def read_feature(text: str, file: str) -> Feature:
    """Parse `text`.

    Raises CodedError `invalid_gherkin` with the line, or `no_scenarios`.
    """
    document = _parse(text, file)
    feature = document.get("feature")
    if not feature:
        message = f"{file}: expected a Feature, found none"
        raise CodedError("no_scenarios", message, details={"file": file})
    lines = dict(_lines(document))
    pickles = Compiler().compile({**document, "uri": file})  # type: ignore[typeddict-item,unused-ignore]
    scenarios = tuple(_scenario(pickle, lines) for pickle in pickles if pickle["steps"])
    if not scenarios:
        message = f"{file}: expected a scenario with steps in feature {feature['name']!r}"
        raise CodedError("no_scenarios", message, details={"file": file})
    return Feature(feature["name"], feature["language"], scenarios)


def _parse(text: str, file: str) -> Mapping[str, Any]:
    try:
        return Parser().parse(text)  # type: ignore[no-any-return,unused-ignore]
    except ParserError as error:
        first = error.errors[0] if isinstance(error, CompositeParserException) else error
        line = getattr(first, "location", {}).get("line", 0)
        what = str(first).partition(": ")[2] or str(first)
        details: dict[str, object] = {"file": file, "line": line}
        raise CodedError("invalid_gherkin", f"{file}:{line}: {what}", details=details) from error


def _lines(node: object) -> Iterator[tuple[str, int]]:
    """Return the line of every syntax node that has an id."""
    if isinstance(node, list):
        for each in node:
            yield from _lines(each)
    elif isinstance(node, dict):
        if "id" in node and "location" in node:
            yield node["id"], node["location"]["line"]
        for each in node.values():
            yield from _lines(each)


def _scenario(pickle: Mapping[str, Any], lines: Mapping[str, int]) -> Scenario:
    return Scenario(
        name=pickle["name"],
        line=lines[pickle["astNodeIds"][-1]],
        tags=tuple(tag["name"] for tag in pickle["tags"]),
        steps=tuple(_step(step, lines) for step in pickle["steps"]),
    )


def _step(step: Mapping[str, Any], lines: Mapping[str, int]) -> GherkinStep:
    argument = step.get("argument") or {}
    rows = argument.get("dataTable", {}).get("rows", [])
    return GherkinStep(
        line=lines[step["astNodeIds"][0]],
        text=step["text"],
        table=tuple(tuple(cell["value"] for cell in row["cells"]) for row in rows),
        doc_string=argument.get("docString", {}).get("content"),
    )
