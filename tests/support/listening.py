"""Wait until workers listen to broadcasts: they are ready a moment before."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from celery.app.control import flatten_reply

from support.waiting import eventually

__all__ = ["await_listening"]


def await_listening(app: Any, names: Collection[str], why: Callable[[], str] = str) -> None:
    """Wait until each worker answers a ping; `names` are those before the `@`."""

    def silent() -> set[str]:
        # A connection of its own: one of kombu's pool may be of before a restart of the server.
        with app.connection_for_write() as connection:
            replies = flatten_reply(app.control.ping(timeout=1, connection=connection))
        return set(names) - {worker.partition("@")[0] for worker in replies}

    eventually(lambda: not silent(), f"answers of {names}", why=why)
