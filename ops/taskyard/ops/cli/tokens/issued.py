"""A token that was just made or renewed, shown this once; and the ids that people give."""

from __future__ import annotations

from dataclasses import asdict

import typer

from taskyard.access import Token
from taskyard.control.tokens import IssuedToken
from taskyard.errors import TokenRefused
from taskyard.ops.cli.console import note, print_json, say
from taskyard.ops.cli.rights import bounds_text
from taskyard.ops.cli.times import moment

__all__ = ["check_id", "print_issued"]


def print_issued(issued: IssuedToken, *, json: bool) -> None:
    """Print the token alone on standard output, so that a script can keep it, and facts beside."""
    info = issued.info
    if json:
        print_json({"token": issued.token.reveal(), **asdict(info)})
        return
    say(issued.token.reveal())
    bounds = bounds_text(info.queues, info.domains)
    note(
        f"the token {info.id} makes its bearer {info.subject}, {info.role}, bounds: {bounds}, "
        f"until {moment(info.expires_at)}. It is shown this once and cannot be read again"
    )
    if info.previous_until is not None:
        note(f"the secret before it is taken until {moment(info.previous_until)}")
    note(
        "keep it where secrets are kept; a shell takes it without a trace in its history: "
        "read -rs TASKYARD_TOKEN && export TASKYARD_TOKEN"
    )


def check_id(word: str) -> str:
    """Return a token's id as a person gave it; raises `typer.BadParameter` for a whole token."""
    try:
        token = Token.parse(word)
    except TokenRefused:
        return word.strip()
    raise typer.BadParameter(
        f"this is the whole token, and whoever can see the processes of this machine can read it "
        f"now. Give its id alone, and end it. Run: taskyard tokens revoke {token.id}",
        param_hint="ID",
    )
