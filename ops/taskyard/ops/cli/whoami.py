"""`taskyard whoami`: the identity of this shell, and what workers make of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from taskyard.access import Identity
from taskyard.access.broadcast_calls import WHOAMI, call_of_broadcast
from taskyard.broker import make_app
from taskyard.control.sign_message import identity_here, sign_call
from taskyard.errors import CredentialRefused, NotFound
from taskyard.jobs import Catalogue
from taskyard.ops.cli.console import note, print_json, put, put_facts, table
from taskyard.ops.cli.load_app import load_app
from taskyard.ops.cli.options import Json
from taskyard.ops.cli.rights_options import bounds_text
from taskyard.ops.cli.target_servers import find_target
from taskyard.settings import Settings
from taskyard.wire.credential_argument import CREDENTIAL

__all__ = ["command"]

_WAIT_S: Final = 2.0


def command(
    workers: Annotated[
        bool, typer.Option("--workers", help="Ask every worker by a signed broadcast.")
    ] = False,
    app: Annotated[
        str | None,
        typer.Option("--app", help="Of --workers: an app that Taskyard is installed on."),
    ] = None,
    json: Json = False,
) -> None:
    """Say who you are here, or at every worker.

    `--workers` waits 2 s for the answers; it needs TASKYARD_SIGNING_KEY.
    """
    settings = find_target(quiet=json).settings
    if not workers:
        _show(identity_here(settings), json=json)
        return
    answers = _asked(settings, app)
    if json:
        print_json(answers)
    else:
        _print(answers)
    denied = sum("denied" in answer for answer in answers)
    if denied:
        raise typer.Exit(CredentialRefused.exit_code)


def _show(identity: Identity, *, json: bool) -> None:
    facts = {
        "subject": identity.subject,
        "via": identity.via,
        "role": identity.role.value,
        "by name": ", ".join(sorted(identity.granted)) or "none",
        "bounds": bounds_text(identity.queues, identity.domains),
    }
    if json:
        print_json(facts)
    else:
        put_facts(facts.items())


def _asked(settings: Settings, app: str | None) -> Sequence[dict[str, Any]]:
    """Ask every worker, and return each worker's answer; raises `NotFound` if no worker answers."""
    if app is None:
        celery = make_app(settings, Catalogue.of(settings))
        audience = settings.namespace
    else:
        celery = load_app(app)
        installed = getattr(celery, "taskyard", None)
        audience = settings.namespace if installed is None else installed.given.namespace
    credential = sign_call(settings, call_of_broadcast(audience, WHOAMI))
    with celery.connection_for_write() as connection:
        replies = celery.control.broadcast(
            WHOAMI,
            arguments={CREDENTIAL: credential},
            reply=True,
            timeout=_WAIT_S,
            connection=connection,
        )
    answers = [
        {"worker": name, **answer} for reply in replies or () for name, answer in reply.items()
    ]
    if not answers:
        raise NotFound(f"no worker answered within {_WAIT_S:g} s. See: taskyard queues list")
    return sorted(answers, key=lambda answer: str(answer["worker"]))


def _print(answers: Sequence[dict[str, Any]]) -> None:
    rows = [
        (
            answer["worker"],
            answer.get("subject", "denied"),
            answer.get("role", ""),
            answer.get("why") or answer.get("error") or answer.get("via", ""),
        )
        for answer in answers
    ]
    put(table(("worker", "subject", "role", "by, or why not"), rows))
    note(f"{len(answers)} workers answered")
