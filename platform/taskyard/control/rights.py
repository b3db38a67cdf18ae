"""The rights that a token or a grant gives, and the rules for giving them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from taskyard.access import RIGHTS, Action, Identity, Role
from taskyard.errors import InvalidRights, NotPermitted
from taskyard.wire.steering import STEERING

__all__ = ["Rights", "check_grantable", "check_subject", "identity_of"]

_LONGEST: Final = 200
# What an audit row says of identities that were verified in another way: no token may claim it.
_RESERVED: Final = ("local:", "broker:", "token:", "key:")


@dataclass(frozen=True, slots=True)
class Rights:
    """A role, the actions above it that are given by name, and the bounds; None binds to none."""

    role: Role
    queues: frozenset[str] | None = None
    domains: frozenset[str] | None = None
    granted: frozenset[Action] = frozenset()

    def columns(self) -> dict[str, Any]:
        """The values of a row of `operator_tokens` or `operator_grants`."""
        return {
            "role": self.role.value,
            "queues": None if self.queues is None else sorted(self.queues),
            "domains": None if self.domains is None else sorted(self.domains),
            "granted": sorted(action.value for action in self.granted),
        }


def identity_of(row: Mapping[str, Any], via: str) -> Identity:
    """Return the identity that a row of either table stands for.

    An action that this version does not know, since a newer one granted it, is not among its own.
    """
    return Identity(
        row["subject"],
        via=via,
        role=Role(row["role"]),
        queues=None if row["queues"] is None else frozenset(row["queues"]),
        domains=None if row["domains"] is None else frozenset(row["domains"]),
        granted=frozenset(action for action in Action if action.value in row["granted"]),
    )


def check_subject(subject: str) -> str:
    """Return the name of whom a token or a grant is for; raises `InvalidRights`.

    It is compared letter by letter: two spellings are two people.
    """
    if not 1 <= len(subject) <= _LONGEST or re.search(r"\s", subject) or STEERING.search(subject):
        raise InvalidRights(
            f"a name has 1 to {_LONGEST} visible characters without spaces, such as "
            f"ada@example.com; got {subject[:60]!r}"
        )
    if subject.lower().startswith(_RESERVED):
        raise InvalidRights(
            f"the name {subject[:60]!r} begins like those that the audit log gives to other "
            f"identities ({', '.join(_RESERVED)}); choose one that does not"
        )
    return subject


def check_grantable(giver: Identity, rights: Rights) -> None:
    """Raise unless `giver` may give these rights: none above their own.

    Raises `InvalidRights` for what nobody can be given, `NotPermitted` for what `giver` lacks.
    """
    _check_names("queue", rights.queues)
    _check_names("domain", rights.domains)
    by_name = {action for action, right in RIGHTS.items() if right.granted}
    unnameable = sorted(rights.granted - by_name)
    if unnameable:
        raise InvalidRights(
            f"{unnameable[0]} comes with a role and cannot be granted by name; what can: "
            f"{', '.join(sorted(by_name))}"
        )
    _check_not_above(giver, rights)


def _check_not_above(giver: Identity, rights: Rights) -> None:
    if not giver.role.includes(rights.role):
        raise NotPermitted(
            f"{giver.subject} has the role {giver.role} and cannot give the role {rights.role}"
        )
    lacking = sorted(action for action in rights.granted if not giver.may(action))
    if lacking:
        raise NotPermitted(f"{giver.subject} may not do {lacking[0]} and cannot give it to others")
    for kind, own, given in (
        ("queues", giver.queues, rights.queues),
        ("domains", giver.domains, rights.domains),
    ):
        if own is not None and (given is None or not given <= own):
            raise NotPermitted(
                f"{giver.subject} is bound to the {kind} {', '.join(sorted(own)) or 'none'} and "
                "cannot give rights beyond them"
            )


def _check_names(kind: str, names: Iterable[str] | None) -> None:
    for name in () if names is None else names:
        if not 1 <= len(name) <= _LONGEST or re.search(r"[\s,]", name) or STEERING.search(name):
            raise InvalidRights(
                f"expected the name of a {kind}, 1 to {_LONGEST} visible characters without spaces "
                f"or commas, got {name[:60]!r}"
            )
