"""What the crash tests kill: a job with an effect in Postgres, and consumers that die all the time.

`python -m support.crash <JSON of Kills>` forks one consumer after the other and kills each.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import redis
from kombu import Connection
from sqlalchemy import Engine, create_engine, text

from support.post import OURS, Taken
from taskyard.jobs import JobContext, job

__all__ = ["DATABASE_VARIABLE", "Kills"]

DATABASE_VARIABLE = "CRASH_DATABASE_URL"
# Long enough for a consumer to be in full swing, short enough for many deaths.
SHORTEST_LIFE_S, LONGEST_LIFE_S = 0.05, 0.20


@cache
def _database(pid: int) -> Engine:
    return create_engine(os.environ[DATABASE_VARIABLE], pool_size=1)


@job("effect_once", queue="exec", policy={"max_retries": 0, "backoff_strategy": "immediate"})
def effect_once(payload: Any, context: JobContext) -> int:
    """One row, in the transaction that the inbox guards."""
    with _database(os.getpid()).begin() as connection:
        if context.once(connection):
            row = {"job_id": context.job_id, "attempt": context.attempt}
            insert = text("INSERT INTO effects (job_id, attempt) VALUES (:job_id, :attempt)")
            connection.execute(insert, row)
    return context.attempt


@dataclass(frozen=True)
class Kills:
    """How often a consumer of `queue` is killed, and where it notes what it has handled."""

    url: str
    queue: str
    done: str
    stock: bool
    kills: int
    options: dict[str, Any]

    def encode(self) -> str:
        return json.dumps(asdict(self))

    def consume(self) -> None:
        """Handle messages for ever: note the body, then acknowledge."""
        notes = redis.Redis.from_url(self.url)
        transport = None if self.stock else OURS
        connection = Connection(self.url, transport=transport, transport_options=self.options)
        taken = Taken(connection, [self.queue], prefetch_count=16)
        while True:
            taken.turn()
            for message in taken.messages:
                notes.sadd(self.done, message.body)
                message.ack()
            taken.messages.clear()

    def carry_out(self) -> None:
        """Fork, let it live for a moment, kill."""
        rng = random.Random()  # noqa: S311 - moments need no secrecy
        for _ in range(self.kills):
            child = os.fork()
            if child == 0:
                self.consume()
            time.sleep(rng.uniform(SHORTEST_LIFE_S, LONGEST_LIFE_S))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


if __name__ == "__main__":
    Kills(**json.loads(sys.argv[1])).carry_out()
