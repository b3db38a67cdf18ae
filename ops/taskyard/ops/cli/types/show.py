"""`taskyard types show`: all fields that decide how a type's jobs are handled."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from taskyard.ops.cli.console import note, print_json, put, put_facts, say, table
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.target_servers import find_target
from taskyard.ops.cli.types.field_origins import Known, known_types, the_type
from taskyard.ops.cli.types.policy import Fact, facts

__all__ = ["command"]


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The job type's name.")],
    json: Json = False,
) -> None:
    """Show a job type's policy in force and where it comes from.

    An origin is a file, the handler's decorator, a setting, or `default` where it was not set.
    Arguments of `enqueue` for one job (queue, priority, retries, time limits) override all of them.
    """
    target = find_target(quiet=json)
    types, why_unknown = known_types(target.settings)
    known = the_type(types, name)
    found = list(facts(known, target))
    if json:
        fields = {fact.name: {"value": fact.value, "origin": fact.origin} for fact in found}
        print_json({"name": name, "handler": known.handler, "fields": fields})
        return
    put_facts([("type", name), ("handler", _handler(known, why_unknown))])
    say("")
    rows = [(fact.name, _text(fact), fact.origin) for fact in found]
    put(table(("field", "value", "origin"), rows, folded=2))
    if why_unknown is not None:
        note(f"handlers are unknown: {why_unknown}")


def _handler(known: Known, why_unknown: str | None) -> str:
    if known.handler is None:
        none = "none here: a worker on this machine has no handler either"
        return "unknown" if why_unknown is not None else none
    return known.handler


def _text(fact: Fact) -> str:
    return f"{_value(fact)}{_unit(fact)}"


def _value(fact: Fact) -> str:
    match fact.value:
        case None:
            return "every code" if fact.name == "retry_on_errors" else "none"
        case bool():
            return "yes" if fact.value else "no"
        case list() as items:
            return ", ".join(str(item) for item in items) or "none"
        case float() as number:
            return f"{number:g}"
        case value:
            return str(value)


def _unit(fact: Fact) -> str:
    if fact.value in (None, []):
        return ""
    units: dict[str, Any] = {"s": " s", "ms": " ms", "bytes": " bytes"}
    unit: str = units.get(fact.name.rsplit("_", 1)[-1], "")
    return unit
