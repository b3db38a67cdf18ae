"""`taskyard keys create`: a key pair, or the public key of a pair that was created elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskyard import database
from taskyard.access.key_ring import PublicKey, bytes_of_text
from taskyard.clock import SYSTEM_CLOCK
from taskyard.control import identify, keys
from taskyard.ops.cli.console import note, print_json, say
from taskyard.ops.cli.keys.find_key_ring import need_ring
from taskyard.ops.cli.options import Json, duration
from taskyard.ops.cli.rights_options import Domains, Granted, Queues, Reason, RoleOption, rights_of
from taskyard.ops.cli.target_servers import find_target

__all__ = ["command"]


def command(
    subject: Annotated[
        list[str],
        typer.Argument(
            help="For whom it may sign: ada@example.com, or *@example.com for an issuer."
        ),
    ],
    role: RoleOption,
    private_key: Annotated[
        Path | None, typer.Option(help="The new file for the private key.")
    ] = None,
    public_key: Annotated[
        str | None,
        typer.Option(help="Instead: the public key of a pair that was created elsewhere."),
    ] = None,
    reason: Reason = None,
    expires: Annotated[str | None, typer.Option(help="How long it is valid: 90d.")] = None,
    queues: Queues = None,
    domains: Domains = None,
    grant: Granted = None,
    json: Json = False,
) -> None:
    """Create a key that signs operators' messages.

    Adds the public key to the file that TASKYARD_PUBLIC_KEYS names; workers read a copy of it.
    Needs the identity of an admin without bounds.
    """
    if (private_key is None) == (public_key is None):
        raise typer.BadParameter(
            "give --private-key with a new file, or --public-key with the key of another machine"
        )
    settings = find_target(quiet=json).settings
    ring = need_ring(settings)
    ends = None if expires is None else SYSTEM_CLOCK.now() + duration(expires, "--expires")
    binding = keys.Binding(frozenset(subject), rights_of(role, queues, domains, grant), ends)
    with database.opened(settings.need_database_url(), application_name="taskyard keys") as engine:
        identity = identify(engine, settings)
        if private_key is not None:
            made = keys.create(engine, ring, private_key, binding, identity=identity, reason=reason)
        else:
            made = keys.register(
                engine, ring, _public(str(public_key)), binding, identity=identity, reason=reason
            )
    _print(made, ring, private_key, json=json)


def _public(text: str) -> bytes:
    try:
        return bytes_of_text(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--public-key") from None


def _print(key: PublicKey, ring: Path, private_key: Path | None, *, json: bool) -> None:
    if json:
        print_json({"key": key.key_id, "ring": ring, "private_key": private_key})
        return
    say(key.key_id)
    note(f"its public key is in {ring}; give workers and mirrors that file as TASKYARD_PUBLIC_KEYS")
    if private_key is not None:
        note(
            f"its private key is in {private_key}; sign with it: TASKYARD_SIGNING_KEY={private_key}"
        )
