"""Two relays of one namespace, killed at every seam of a batch: lost 0, doubled 0.

Every request is answered once, every record changes once. Only a publication comes twice, with the
same stamp, and of two equal messages one begins.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import pytest
from kombu import Queue
from sqlalchemy import Engine, func, select

from servers import Servers
from support.letters import died, make_delivery
from support.relay_process import SEAMS, RelayProcess
from support.seams import arm, is_armed
from support.waiting import SOON_S, eventually
from support.yard import fresh_settings
from taskyard.access import Identity, Role
from taskyard.broker import connection
from taskyard.control import replay
from taskyard.control.live_verb import request_verb
from taskyard.database.tables import AUDIT, OUTBOX
from taskyard.jobs.states import Event, State
from taskyard.mirror.store_letters import store_letters
from taskyard.records import Records, Run
from taskyard.settings import Settings
from taskyard.store import connect
from taskyard.wire import Letter, Stamp

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True
pytestmark = pytest.mark.slow

BROKERS = ("redis", "rabbitmq")
OPS = Identity("ops@example.com", via="token", role=Role.OPERATOR)
WHY = "Infrastructure recovered after 2-hour outage"
AT_ONCE = 8


@dataclass
class Scene:
    """Jobs and letters, two relays, and every request that was made."""

    settings: Settings
    database: Engine
    records: Records
    relays: tuple[RelayProcess, RelayProcess]
    replayed: dict[uuid.UUID, Letter] = field(default_factory=dict)
    cancelled: dict[uuid.UUID, str] = field(default_factory=dict)

    def request(self) -> None:
        """Some replays and some cancels, in both lanes."""
        letters = [died(self.records) for _ in range(AT_ONCE)]
        with self.database.begin() as opened:
            store_letters(opened, [make_delivery(letter) for letter in letters])
        for place, letter in enumerate(letters):
            asked = replay(
                self.database, letter.letter_id, identity=OPS, reason=WHY, bulk=place % 2 == 0
            )
            self.replayed[asked.request_id] = letter
        for place in range(AT_ONCE):
            job_id = str(uuid.uuid4())
            self.records.admit(job_id, job_type="t", queue="exec", priority=3, unique_for_s=0)
            verb = request_verb(
                self.database,
                self.records,
                job_id,
                Event.CANCEL,
                identity=OPS,
                reason=WHY,
                bulk=place % 2 == 0,
            )
            self.cancelled[verb.request_id] = job_id

    def kill_at(self, seam: str) -> None:
        """Ask for work until the first relay has reached the seam and is dead."""
        first, second = self.relays
        arm(first.seams, seam)
        until_s = monotonic() + SOON_S
        while is_armed(first.seams, seam):
            assert monotonic() < until_s, f"no relay reached {seam!r}:\n{first.log[-3000:]}"
            self.request()
            eventually(
                lambda: is_armed(first.seams, seam) is False or self.unanswered() == 0,
                f"a kill {seam}, or every answer",
                why=lambda: first.log[-2000:] + second.log[-2000:],
            )
        eventually(first.revive, f"the relay's death {seam}")
        assert not second.revive()

    def unanswered(self) -> int:
        query = select(func.count()).select_from(OUTBOX).where(OUTBOX.c.done_at.is_(None))
        with self.database.connect() as opened:
            return int(opened.scalar(query) or 0)

    def answers(self) -> dict[uuid.UUID, list[str]]:
        query = select(AUDIT.c.request_id, AUDIT.c.outcome).order_by(AUDIT.c.id)
        found: dict[uuid.UUID, list[str]] = {}
        with self.database.connect() as opened:
            for request, outcome in opened.execute(query):
                found.setdefault(request, []).append(outcome)
        return found

    def messages(self) -> list[tuple[str, Stamp]]:
        """Job and stamp of every message that waits in the queue of the letters."""
        with connection(self.settings) as broker:
            queue = Queue(self.settings.broker_name("plan"), channel=broker.default_channel)
            queue.no_declare = True
            found = iter(lambda: queue.get(no_ack=True), None)
            return [(each.headers["id"], Stamp.read(each.headers)) for each in found]  # type: ignore[misc]


@pytest.fixture(params=BROKERS)
def scene(
    request: pytest.FixtureRequest,
    servers: Servers,
    database: Engine,
    database_url: str,
    tmp_path: Path,
) -> Iterator[Scene]:
    url = servers.valkey_url()
    at = url if request.param == "redis" else servers.rabbitmq_url()
    settings = fresh_settings(url, broker_url=at, database_url=database_url)
    client = connect(url)
    relays = (
        RelayProcess(settings, tmp_path, "first"),
        RelayProcess(settings, tmp_path, "second"),
    )
    for relay in relays:
        relay.start()
    yield Scene(settings, database, Records(client, settings), relays)
    for relay in relays:
        relay.stop()
    client.close()


def test_two_relays_killed_at_every_seam_lose_nothing_and_double_nothing(scene: Scene) -> None:
    publish = "RabbitMQ" if scene.settings.need_broker_url().startswith("amqp") else "Redis"
    seams = [seam for seam in SEAMS if " at " not in seam or seam.endswith(publish)]
    for seam in seams:
        scene.kill_at(seam)
    eventually(lambda: scene.unanswered() == 0, "every answer", why=lambda: scene.relays[0].log)
    assert scene.relays[0].deaths == len(seams)

    answers = scene.answers()
    for asked in (*scene.replayed, *scene.cancelled):
        assert answers[asked] == ["requested", "applied"]
    for job_id in scene.cancelled.values():
        record = scene.records.read(job_id)
        assert (record.state, record.number("version")) == (State.CANCELLED, 2)
    messages = scene.messages()
    stamps = {(job_id, stamp.epoch, stamp.generation, stamp.seq) for job_id, stamp in messages}
    letters = scene.replayed.values()
    assert stamps == {(letter.job_id, letter.epoch, 1, 0) for letter in letters}
    begun = [_begin(scene.records, job_id, stamp) for job_id, stamp in messages]
    assert sum(isinstance(answer, Run) for answer in begun) == len(letters)


def _begin(records: Records, job_id: str, stamp: Stamp) -> object:
    return records.attempts.begin(
        job_id, stamp, holder=str(uuid.uuid4()), worker="w", job_type="t", queue="plan"
    )
