"""The rights of a token or a grant, and the rules for giving them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from taskyard.access import RIGHTS, Action, Identity, Role
from taskyard.errors import InvalidRights, NotPermitted
from taskyard.wire.control_characters import STEERING
from taskyard.wire.redaction import mask_tokens

__all__ = ["Rights", "check_grantable", "check_no_secret", "check_subject", "identity_of"]

_LONGEST: Final = 200
# How audit rows name identities that were verified in another way: no token may use it.
_RESERVED: Final = ("local:", "broker:", "token:", "key:")


@dataclass(frozen=True, slots=True)
class Rights:
    """A role, the extra actions granted by name, and the bounds; None means no bound."""

    role: Role
    queues: frozenset[str] | None = None
    domains: frozenset[str] | None = None
    granted: frozenset[Action] = frozenset()

    def columns(self) -> dict[str, Any]:
        """Return the values for a row of `operator_tokens` or `operator_grants`."""
        return {
            "role": self.role.value,
            "queues": None if self.queues is None else sorted(self.queues),
            "domains": None if self.domains is None else sorted(self.domains),
            "granted": sorted(action.value for action in self.granted),
        }


def identity_of(row: Mapping[str, Any], via: str) -> Identity:
    """Return the identity of a row of either table.

    Actions that this version does not know, since a newer one granted them, are left out.
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
    """Return the name for a token or a grant; raises `InvalidRights`.

    Names are compared letter by letter: two spellings are two people.
    """
    check_no_secret("a name", subject)
    if not 1 <= len(subject) <= _LONGEST or re.search(r"\s", subject) or STEERING.search(subject):
        raise InvalidRights(
            f"expected a name of 1 to {_LONGEST} visible characters without spaces, such as "
            f"ada@example.com, got {subject[:60]!r}"
        )
    if subject.lower().startswith(_RESERVED):
        raise InvalidRights(
            f"the name {subject[:60]!r} begins like names of other identities in the audit log "
            f"({', '.join(_RESERVED)}); choose another"
        )
    return subject


def check_no_secret(kind: str, text: str) -> None:
    """Raise `InvalidRights` for a text that contains a token or a credential.

    Names are stored in clear in tables and in the audit log, which keep them for good.
    """
    if mask_tokens(text) != text:
        raise InvalidRights(
            f"expected {kind}, got a text that contains a token or a credential. Other users of "
            "this machine may have seen it in the list of processes. End the token: taskyard "
            "tokens revoke"
        )


def check_grantable(giver: Identity, rights: Rights) -> None:
    """Raise unless `giver` may give these rights, which may not exceed their own.

    Raises `InvalidRights` for rights that cannot be given, `NotPermitted` for rights that `giver`
    lacks.
    """
    _check_names("queue", rights.queues)
    _check_names("domain", rights.domains)
    by_name = {action for action, right in RIGHTS.items() if right.granted}
    unnameable = sorted(rights.granted - by_name)
    if unnameable:
        raise InvalidRights(
            f"{unnameable[0]} belongs to a role and cannot be granted by name; these can be "
            "granted: "
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
                f"{giver.subject} is limited to the {kind} {', '.join(sorted(own)) or 'none'} and "
                "cannot give rights beyond this"
            )


def _check_names(kind: str, names: Iterable[str] | None) -> None:
    for name in () if names is None else names:
        check_no_secret(f"the name of a {kind}", name)
        if not 1 <= len(name) <= _LONGEST or re.search(r"[\s,]", name) or STEERING.search(name):
            raise InvalidRights(
                f"expected the name of a {kind}, 1 to {_LONGEST} visible characters without spaces "
                f"or commas, got {name[:60]!r}"
            )
