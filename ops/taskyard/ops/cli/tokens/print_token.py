"""Print a new token, which is shown only once; and check the ids that people give."""

from __future__ import annotations

from dataclasses import asdict

import typer

from taskyard.access import Token
from taskyard.control.tokens import IssuedToken
from taskyard.errors import TokenRefused
from taskyard.ops.cli.console import note, print_json, say
from taskyard.ops.cli.rights_options import bounds_text
from taskyard.ops.cli.time_text import moment

__all__ = ["check_id", "print_issued"]


def print_issued(issued: IssuedToken, *, json: bool) -> None:
    """Print only the token on standard output, so that a script can store it; facts on stderr."""
    info = issued.info
    if json:
        print_json({"token": issued.token.reveal(), **asdict(info)})
        return
    say(issued.token.reveal())
    bounds = bounds_text(info.queues, info.domains)
    note(
        f"with the token {info.id} its bearer acts as {info.subject}, role {info.role}, bounds: "
        f"{bounds}, until {moment(info.expires_at)}. It is shown only now and cannot be read again"
    )
    if info.previous_until is not None:
        note(f"the previous secret is accepted until {moment(info.previous_until)}")
    note(
        "store it with your other secrets. To use it in a shell without a trace in the history, "
        "run: "
        "read -rs TASKYARD_TOKEN && export TASKYARD_TOKEN"
    )


def check_id(word: str) -> str:
    """Return a token's id from the command line; raises `typer.BadParameter` for a whole token."""
    try:
        token = Token.parse(word)
    except TokenRefused:
        return word.strip()
    raise typer.BadParameter(
        f"expected the token's id, got the whole token, which users of this machine can see in "
        f"the list of processes. Revoke this token. Run: taskyard tokens revoke {token.id}",
        param_hint="ID",
    )
