"""Turn a switch on the operator's word: with Postgres, without it, or as a form for later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

import typer

from taskyard import database
from taskyard.clock import from_us
from taskyard.control import identify
from taskyard.control.break_glass import SwitchForm, sign_form, turn_by_form, turn_by_trust
from taskyard.control.switch_request import KnownNames, SwitchRequest, time_text
from taskyard.control.turn_switch import SwitchTurned, naming_break_glass, turn_switch
from taskyard.ops.cli.console import note, print_json, say
from taskyard.ops.cli.local_handlers import load_handlers
from taskyard.ops.cli.options import duration
from taskyard.ops.cli.switches.turn_options import end_of
from taskyard.ops.cli.target_servers import find_target
from taskyard.settings import Settings
from taskyard.store import connect, reachable
from taskyard.switches import Kind, Mode, RedisSwitches, SwitchField, SwitchState

__all__ = ["How", "opened_switches", "print_turned", "run_turn", "state_facts"]

_WITHOUT_POSTGRES: Final = "break_glass"


@dataclass(frozen=True, slots=True)
class How:
    """The options of one command, as they were given."""

    reason: str | None
    lasts: str | None = None
    until: str | None = None
    force: bool = False
    dry_run: bool = False
    break_glass: bool = False
    sign: bool = False
    valid_for: str = "7d"
    subject: str | None = None
    json: bool = False


def run_turn(kind: Kind, on: str, mode: Mode, how: How) -> None:
    """Turn the switch, or print the form that turns it later."""
    if how.sign + how.break_glass + how.dry_run > 1:
        raise typer.BadParameter("give only one of --sign, --break-glass and --dry-run")
    lasts = None if how.lasts is None else duration(how.lasts, "--for")
    request = SwitchRequest(kind, on, mode, end_of(how.until), lasts)
    settings = find_target(quiet=how.json or how.sign).settings
    if how.sign:
        _check_name(settings, None, request, how)
        typer.echo(_signed(settings, request, how).model_dump_json())
        return
    with opened_switches(settings) as switches:
        if how.break_glass:
            _break_glass(settings, switches, request, how)
        else:
            _turn(settings, switches, request, how)


@contextmanager
def opened_switches(settings: Settings) -> Iterator[RedisSwitches]:
    """Open the switches in Redis; a Redis that does not answer is soon given up."""
    with closing(connect(settings.need_redis_url(), retries=1, timeout_s=1)) as client:
        yield RedisSwitches(client, settings.namespace)


def _names(settings: Settings, switches: RedisSwitches | None) -> KnownNames:
    load_handlers(settings)
    return KnownNames.of(settings, None if switches is None else switches.client)


def _check_name(
    settings: Settings, switches: RedisSwitches | None, request: SwitchRequest, how: How
) -> None:
    """Refuse an unknown name where no Postgres is asked; raises `Refused`, `InvalidSwitch`."""
    field = request.field()
    if not how.force and request.mode is not Mode.OFF:
        _names(settings, switches).check(field)


def _turn(settings: Settings, switches: RedisSwitches, request: SwitchRequest, how: How) -> None:
    url = settings.need_database_url()
    with (
        database.opened(url, application_name="taskyard switches") as engine,
        naming_break_glass(),
    ):
        turned = turn_switch(
            engine,
            switches,
            request,
            identity=identify(engine, settings),
            reason=how.reason,
            require_reason=settings.require_reason,
            names=None if how.force else lambda: _names(settings, switches),
            dry_run=how.dry_run,
        )
    print_turned(turned.field, turned.state, turned.outcome, json=how.json, turned=turned)


def _break_glass(
    settings: Settings, switches: RedisSwitches, request: SwitchRequest, how: How
) -> None:
    _check_name(settings, switches, request, how)
    with reachable(settings.need_redis_url()):
        if settings.signing_key is not None:
            form = _signed(settings, request, how)
            state = turn_by_form(settings, switches, form)
        else:
            state = turn_by_trust(settings, switches, request, how.reason)
    print_turned(request.field(), state, _WITHOUT_POSTGRES, json=how.json)


def _signed(settings: Settings, request: SwitchRequest, how: How) -> SwitchForm:
    life = duration(how.valid_for, "--valid-for")
    return sign_form(settings, request, how.reason, life=life, subject=how.subject)


def print_turned(
    field: SwitchField,
    state: SwitchState,
    outcome: str,
    *,
    json: bool,
    turned: SwitchTurned | None = None,
) -> None:
    """Print what a switch is now, and whether it is in force."""
    why = "" if turned is None else turned.why
    if json:
        print_json({**state_facts(field, state), "outcome": outcome, "why": why})
        return
    would = "would be " if outcome == "dry_run" else ""
    say(f"{field} {would or 'is '}{_sentence(state)}")
    if why:
        note(f"{why}. See: taskyard switches list")
    if outcome == _WITHOUT_POSTGRES:
        note(
            "workers and clients know it from Redis; mirror and relay bring it to Postgres when "
            f"that answers. See: taskyard audit show {state.request_id}"
        )


def _sentence(state: SwitchState) -> str:
    if state.mode is Mode.OFF:
        return "off"
    end = f" until {time_text(state.until_us)}" if state.until_us else ""
    return f"on ({state.mode}){end}"


def state_facts(field: SwitchField, state: SwitchState) -> dict[str, Any]:
    """Return a switch as `--json` prints it; times are ISO 8601."""
    facts = asdict(state)
    since_us, until_us = facts.pop("since_us"), facts.pop("until_us")
    until = from_us(until_us) if until_us else None
    return {"switch": str(field), **facts, "since": from_us(since_us), "until": until}
