"""An identity: a verified subject, how it was verified, and what it may do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from taskyard.access.actions import Action, Scope
from taskyard.access.operator_roles import RIGHTS, Role
from taskyard.errors import NotPermitted

__all__ = ["Identity"]


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified subject and its rights.

    Never build an identity from an argument that a caller may set. `via` names the credential:
    `local`, `token:<id>`, `key:<id>`. `queues` and `domains` limit the identity to jobs in these
    queues and to job types of these domains; None means no limit. `granted` are actions above its
    role that its token or grant names.
    """

    subject: str
    via: str
    role: Role
    queues: frozenset[str] | None = None
    domains: frozenset[str] | None = None
    granted: frozenset[Action] = frozenset()

    def may(self, action: Action) -> bool:
        """Return whether the role or a grant by name allows the action, without its bounds."""
        right = RIGHTS[action]
        return self.role.includes(right.role) or (right.granted and action in self.granted)

    def permit(self, action: Action) -> None:
        """Raise `NotPermitted` if the identity may not take this action on any target."""
        right = RIGHTS[action]
        if not self.may(action):
            raise NotPermitted(
                f"{self.subject} has the role {self.role} and may not do {action}; that needs the "
                f"role {right.role}{' or a grant by name' if right.granted else ''}"
            )
        if right.scope is Scope.FLEET and self._bounds():
            raise NotPermitted(
                f"{self.subject} is bound to {self._bounds()} and may not do {action}, because "
                "the action affects jobs outside this bound; use an identity without a bound"
            )

    def permit_on(self, action: Action, *, queues: Iterable[str], domain: str | None) -> None:
        """Raise `NotPermitted` unless the target is within the queues and domains of the identity.

        `queues` are all queues that the action touches: the job's own queue, and the queue that the
        job goes to.
        """
        self.permit(action)
        outside = [] if self.queues is None else sorted(set(queues) - self.queues)
        if outside:
            raise NotPermitted(
                f"{self.subject} is bound to {self._bounds()} and may not do {action} in the "
                f"queue {outside[0]!r}"
            )
        if self.domains is not None and domain not in self.domains:
            owner = "has no domain" if domain is None else f"belongs to the domain {domain!r}"
            raise NotPermitted(
                f"{self.subject} is bound to {self._bounds()} and may not do {action} on a job "
                f"whose type {owner}"
            )

    def sees(self, queue: str, domain: str | None) -> bool:
        """Return whether lists show this identity the items of the queue and the domain."""
        return (self.queues is None or queue in self.queues) and (
            self.domains is None or domain in self.domains
        )

    def sees_subject(self, subject: str) -> bool:
        """Return whether lists of tokens and grants show this identity those of the subject.

        They concern the whole fleet, so an identity with bounds sees only its own.
        """
        return not self._bounds() or subject == self.subject

    def _bounds(self) -> str:
        """Return the bounds in words, empty without any."""
        parts = [
            f"{name} {', '.join(sorted(bound)) or 'none'}"
            for name, bound in (("queues", self.queues), ("domains", self.domains))
            if bound is not None
        ]
        return " and ".join(parts)
