"""An operator's request to turn a switch, checked: on what, in which mode, until when."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Final, Self

import redis

from taskyard.access import Action, Identity
from taskyard.clock import from_us, to_us, us_of
from taskyard.errors import InvalidSwitch, NotPermitted, Refused
from taskyard.jobs import Catalogue, registry
from taskyard.records.live_workers import Fleet
from taskyard.settings import Settings
from taskyard.switches import Kind, Mode, SwitchField, SwitchScope, SwitchState
from taskyard.wire.control_characters import escaped

__all__ = [
    "LONGEST_SWITCH",
    "KnownNames",
    "SwitchRequest",
    "action_of",
    "already_off",
    "next_state",
    "permit",
    "time_text",
    "turned_by",
]

LONGEST_SWITCH: Final = timedelta(days=3660)
_ACTIONS: Final[Mapping[tuple[Kind, bool], Action]] = {
    (Kind.PAUSE, True): Action.PAUSE_QUEUE,
    (Kind.PAUSE, False): Action.RESUME_QUEUE,
    (Kind.KILL, True): Action.ENGAGE_KILL_SWITCH,
    (Kind.KILL, False): Action.RELEASE_KILL_SWITCH,
}
_LISTED: Final = 10


def action_of(kind: Kind, mode: Mode) -> Action:
    """Return the action of turning a switch on or off."""
    return _ACTIONS[kind, mode is not Mode.OFF]


@dataclass(frozen=True, slots=True)
class SwitchRequest:
    """A switch to turn on or off; `until` is the end, or `lasts` from now; neither means no end."""

    kind: Kind
    on: str
    mode: Mode
    until: datetime | None = None
    lasts: timedelta | None = None

    @property
    def action(self) -> Action:
        """The action that an identity needs the right for."""
        return action_of(self.kind, self.mode)

    def field(self) -> SwitchField:
        """Return which switch it is; raises `InvalidSwitch`, also for a mode or an end."""
        if self.kind is Kind.PAUSE and self.mode is Mode.REFUSE:
            raise InvalidSwitch("a paused queue takes new jobs; to refuse them: taskyard kill on")
        if self.until is not None and self.lasts is not None:
            raise InvalidSwitch("expected an end or a duration, got both")
        if self.until is not None and self.until.tzinfo is None:
            raise InvalidSwitch(f"expected an end with its time zone, got {self.until}")
        return SwitchField.parse(f"{self.kind} {self.on}")

    def until_us(self, now_us: int) -> int:
        """Return the end, 0 for none; raises `InvalidSwitch` for one that is not in the future."""
        if self.mode is Mode.OFF or (self.until is None and self.lasts is None):
            return 0
        if self.lasts is not None:
            end_us = now_us + us_of(min(self.lasts, 2 * LONGEST_SWITCH).total_seconds())
        else:
            end_us = to_us(self.until) if self.until is not None else 0
        if not now_us < end_us <= now_us + us_of(LONGEST_SWITCH.total_seconds()):
            raise InvalidSwitch(
                f"a switch ends in the future, within {LONGEST_SWITCH.days} days; got "
                f"{self.until if self.lasts is None else self.lasts}, and the clock is at "
                f"{time_text(now_us)}. Give another end, or none"
            )
        return end_us


def permit(identity: Identity, action: Action, on: SwitchField) -> None:
    """Raise `NotPermitted` unless the identity may turn this switch."""
    identity.permit(action)
    if on.kind is Kind.PAUSE:
        if identity.domains is not None:
            raise NotPermitted(
                f"{identity.subject} is bound to domains and may not do {action}: a queue may hold "
                "jobs of other domains; use an identity without such a bound"
            )
        identity.permit_on(action, queues=[on.name], domain=None)


def time_text(us: int) -> str:
    """Return a time of a switch for people."""
    return f"{from_us(us):%Y-%m-%d %H:%M:%S} UTC"


def already_off(request: SwitchRequest, former: SwitchState | None) -> Refused:
    """Return the error for a request to turn off a switch that is off."""
    since = "" if former is None else f" since {time_text(former.since_us)}"
    return Refused(
        f"{request.kind} {escaped(request.on)} is off{since}, so it cannot be turned off. See: "
        "taskyard switches list"
    )


def turned_by(identity: Identity, reason: str, request_id: uuid.UUID) -> dict[str, str]:
    """Return who turns a switch and why, as the switch's state has it."""
    return {
        "operator": identity.subject,
        "via": identity.via,
        "reason": reason,
        "request_id": str(request_id),
    }


def next_state(
    request: SwitchRequest,
    former: SwitchState | None,
    version: int,
    now_us: int,
    by: Mapping[str, str],
) -> SwitchState:
    """Return the state that a request leads to; `by` is from `turned_by`.

    Raises `InvalidSwitch` for an end that cannot be, `Refused` where the switch is off already.
    """
    if request.mode is Mode.OFF and (former is None or former.mode is Mode.OFF):
        raise already_off(request, former)
    end_us = request.until_us(now_us)
    state = SwitchState(request.mode, version=version, since_us=0, until_us=end_us, **by)
    return state.since(former, now_us)


@dataclass(frozen=True, slots=True)
class KnownNames:
    """The names that this process knows: of queues, of job types and of their domains.

    `redis_outage` is the cause if Redis could not say which queues the workers have.
    """

    names: Mapping[SwitchScope, frozenset[str]] = field(default_factory=dict)
    redis_outage: str = ""

    @classmethod
    def of(cls, settings: Settings, client: redis.Redis | None) -> Self:
        """Return the names in the settings, of the job types here and of the workers' queues.

        Without a client, or where Redis does not answer, the workers' queues are missing. Raises
        `InvalidSettings` for a file of job types that cannot be used.
        """
        types = registry.under(Catalogue.of(settings)).values()
        queues, outage = set(settings.queues), ""
        if client is not None:
            try:
                queues |= _workers_queues(settings, client)
            except redis.RedisError as error:
                outage = str(error)
        names = {
            SwitchScope.QUEUE: frozenset(queues),
            SwitchScope.TYPE: frozenset(job_type.name for job_type in types),
            SwitchScope.DOMAIN: frozenset(known.domain for known in types if known.domain),
        }
        return cls(names, outage)

    def check(self, on: SwitchField) -> None:
        """Raise `Refused` for a name that is not known: no job would meet the switch."""
        known = self.names.get(on.scope, frozenset())
        if on.scope is SwitchScope.ALL or on.name in known:
            return
        near = get_close_matches(on.name, known, n=3)
        listed = near or sorted(known)[:_LISTED]
        more = ", ..." if not near and len(known) > _LISTED else ""
        kind = "job type" if on.scope is SwitchScope.TYPE else on.scope.value
        text = f"{'Close' if near else 'Known'}: {', '.join(listed) or 'none'}{more}"
        if self.redis_outage and on.scope is SwitchScope.QUEUE:
            text += f". Redis did not say which queues the workers have ({self.redis_outage})"
        raise Refused(
            f"this machine knows no {kind} {on.name!r}. {text}. If it belongs to an app whose "
            "settings this machine does not have, repeat the command with --force"
        )


def _workers_queues(settings: Settings, client: redis.Redis) -> set[str]:
    prefix = "" if settings.namespace == "taskyard" else f"{settings.namespace}."
    _, members = Fleet(client, settings.namespace).read()
    return {queue.removeprefix(prefix) for member in members for queue in member.queues}
