"""`taskyard switches apply`: turn a switch by a form that was signed before.

Alone because each command has a file of its own.
"""

from __future__ import annotations

import json as codec
from typing import Annotated

import typer

from taskyard.control.break_glass import SwitchForm, turn_by_form
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.payload import read_payload
from taskyard.ops.cli.switches.run_turn import opened_switches, print_turned
from taskyard.ops.cli.target_servers import find_target
from taskyard.store import reachable

__all__ = ["command"]


def command(
    form: Annotated[
        str,
        typer.Argument(metavar="FORM", help="The form that --sign printed: JSON, @FILE or -."),
    ],
    json: Json = False,
) -> None:
    """Turn a switch by a form that was signed before, without Postgres and without its signer.

    Needs Redis and the key ring (TASKYARD_PUBLIC_KEYS). A form turns the switch that it names,
    once.
    """
    settings = find_target(quiet=json).settings
    signed = SwitchForm.read(codec.dumps(read_payload(form)))
    with opened_switches(settings) as switches, reachable(settings.need_redis_url()):
        state = turn_by_form(settings, switches, signed)
    print_turned(signed.request.field(), state, "break_glass", json=json)
