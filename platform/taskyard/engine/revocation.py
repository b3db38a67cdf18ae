"""A command of Celery that ends jobs, as a worker received it."""

from __future__ import annotations

from dataclasses import dataclass

from taskyard.access import Action, Identity

__all__ = ["Revocation"]


@dataclass(frozen=True, slots=True)
class Revocation:
    """A command that ends jobs: its action, its request id, and who sent it.

    `identity` is None for a sender without a credential, whom no bounds limit.
    """

    verb: Action
    request_id: str
    by: str
    identity: Identity | None = None
