"""The options that give rights, for `tokens create` and `users grant`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Annotated, Final

import typer

from taskyard.access import RIGHTS, Action, Role
from taskyard.control.rights import Rights
from taskyard.errors import InvalidRights, MissingSetting, ServerRefused, ServerUnreachable
from taskyard.install.announced_queues import AnnouncedQueues
from taskyard.ops.cli.console import note
from taskyard.settings import Settings
from taskyard.store import connect, reachable

__all__ = [
    "Domains",
    "Granted",
    "Queues",
    "Reason",
    "RoleOption",
    "bounds_text",
    "note_unknown_queues",
    "rights_of",
]

_BY_NAME: Final = ", ".join(action for action, right in RIGHTS.items() if right.granted)

RoleOption = Annotated[Role, typer.Option(help="What they may do; see docs/security.md.")]
Queues = Annotated[str | None, typer.Option(help="Only within these queues, separated by commas.")]
Domains = Annotated[
    str | None, typer.Option(help="Only for job types of these domains, separated by commas.")
]
Granted = Annotated[
    list[str] | None,
    typer.Option(
        "--grant", help=f"An action above the role, by name: {_BY_NAME}. May be repeated."
    ),
]
Reason = Annotated[str | None, typer.Option(help="Why; kept in the audit log.")]


def rights_of(
    role: Role, queues: str | None, domains: str | None, granted: Sequence[str] | None
) -> Rights:
    """Return the rights from the options; raises `InvalidRights`, `typer.BadParameter`."""
    return Rights(
        role,
        _names(queues, "--queues"),
        _names(domains, "--domains"),
        frozenset(_action(name) for name in granted or ()),
    )


def _names(written: str | None, option: str) -> frozenset[str] | None:
    if written is None:
        return None
    names = [name.strip() for name in written.split(",")]
    if not all(names):
        raise typer.BadParameter(
            f"expected names separated by commas such as exec,plan; got {written!r}",
            param_hint=option,
        )
    return frozenset(names)


def _action(name: str) -> Action:
    try:
        return Action(name)
    except ValueError:
        raise InvalidRights(
            f"there is no action {name[:60]!r}; these can be granted by name: {_BY_NAME}"
        ) from None


def note_unknown_queues(rights: Rights, settings: Settings) -> None:
    """Warn on standard error about queues that are unknown here; they may be misspelt.

    Known are those under [queues] in taskyard.toml, and those that workers of installed apps have
    announced. The rights are stored all the same, because an app's first worker may start later.
    """
    unknown = (rights.queues or frozenset()) - settings.queues.keys()
    if not unknown:
        return
    of_apps, why = _queues_of_apps(settings)
    known = [*settings.queues, *sorted(of_apps - settings.queues.keys())]
    for name in sorted(unknown - of_apps):
        near = difflib.get_close_matches(name, known, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else "."
        note(
            f"warning: the queue {name!r} is not known here{guess} Known: {', '.join(known)}{why}. "
            "The bound is stored as you gave it"
        )


def _queues_of_apps(settings: Settings) -> tuple[set[str], str]:
    """Return the queues that installed apps announced, or none and why they are unknown."""
    try:
        url = settings.need_redis_url()
        with connect(url, retries=0) as client, reachable(url):
            return {place.queue for place in AnnouncedQueues(client, settings.namespace).all()}, ""
    except (MissingSetting, ServerRefused, ServerUnreachable):
        return set(), "; Redis does not answer, so the queues of installed apps are unknown"


def bounds_text(queues: Iterable[str] | None, domains: Iterable[str] | None) -> str:
    """Return the bounds in words: `queues exec, plan; domains billing`; `none` without any."""
    parts = [
        f"{kind} {', '.join(sorted(names)) or 'none'}"
        for kind, names in (("queues", queues), ("domains", domains))
        if names is not None
    ]
    return "; ".join(parts) or "none"
