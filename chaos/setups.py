"""The set-ups that storms blow over: native workers, or an installed Celery app."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["SETUPS", "Setup"]


@dataclass(frozen=True, slots=True)
class Setup:
    """`broker` is `redis` (broker and records in one server) or `rabbitmq`.

    `rate` is the jobs a second that two cores carry with everything on them: servers, workers,
    mirror, relay, client. With `app` a Celery app with `install(app, mode="protect")` does the
    work. `transport` says whether it reaches Redis by Taskyard's transport or by kombu's, `admit`
    whether its producer gives each job its record.
    """

    broker: str
    rate: float
    app: bool = False
    transport: bool = True
    admit: bool = False

    @property
    def loses_pops(self) -> bool:
        """Whether a killed worker loses what it has popped and not yet noted: kombu's pop does."""
        return self.broker == "redis" and not self.transport


SETUPS: Final[Mapping[str, Setup]] = {
    "redis": Setup("redis", 300.0),
    "rabbitmq": Setup("rabbitmq", 200.0),
    "app": Setup("redis", 100.0, app=True),
    # With the record that `admit` writes, `reconcile` names what kombu's pop has lost.
    "app-kombu": Setup("redis", 100.0, app=True, transport=False, admit=True),
    "app-rabbitmq": Setup("rabbitmq", 100.0, app=True),
}
