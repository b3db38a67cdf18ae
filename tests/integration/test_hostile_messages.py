"""Whatever a client puts into a message, it ends as one recorded job or as one letter.

Some 1,600 messages (900 in the quick part) go to one worker: each name that Celery, the broker or
this package reads, with each junk value, one at a time. That takes its seconds, and finds what no
list of known faults would.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from servers import Servers
from support.hostile import FOLLOWER, Case, cases, push
from support.legacy import Legacy
from support.legacy_broker import RabbitBroker, RedisBroker
from support.legacy_fixtures import legacy_on
from support.rabbitmq import count_messages
from support.waiting import eventually
from support.worker import Worker
from support.yard import ServerHarness, fresh_settings, list_key
from taskyard.records import Records
from taskyard.settings import Settings
from taskyard.wire.letter_envelope import Letter
from taskyard.wire.stamp_header import usable_id

LONG_S = 120.0
RECORDED = ("ran", "completed")
DEAD = ("letter", "dead_lettered")
# Watching changes nothing: where Celery fails after the task has run, that is its failure.
FAILED_AFTER_IT_RAN = ("ran, letter", "dead_lettered")
# A watched task's date is Celery's: its worker holds the message for eight thousand years.
WAITS_IN_CELERY = "header eta='9999-12-31T23:59:59'"
ON_BOTH = pytest.mark.parametrize(
    ("broker", "every_value"),
    [
        ("redis", False),
        pytest.param("redis", True, marks=pytest.mark.slow),
        pytest.param("rabbitmq", True, marks=pytest.mark.slow),
    ],
    ids=["redis, a part", "redis", "rabbitmq"],
)


class Sent:
    """The messages under the marks that their arguments carry, and what became of each."""

    def __init__(self, settings: Settings, queue: str) -> None:
        self._settings, self.queue = settings, queue
        self._run = uuid.uuid4().hex[:8]
        self.cases: dict[str, Case] = {}

    def push_all(self, chosen: list[Case], task: str, args: Callable[[str], list[Any]]) -> None:
        numbered = [(f"n{at}", case) for at, case in enumerate(chosen)]
        sound = {"task": task}
        messages = [
            (case, {**sound, "id": f"{self._run}-{mark}"}, args(mark)) for mark, case in numbered
        ]
        taken = push(self._settings, self.queue, messages)
        self.cases = {mark: case for (mark, case), was in zip(numbered, taken, strict=True) if was}

    def untold(self, marks: Iterable[str]) -> list[str]:
        """The first cases of which nothing is known."""
        known = set(marks)
        return [f"{mark} {case}" for mark, case in self.cases.items() if mark not in known][:20]

    def endings(
        self,
        runs: Mapping[str, int],
        letters: Mapping[str, Letter],
        state: Callable[[str], str],
    ) -> dict[str, tuple[str, str]]:
        found = {}
        for mark, case in self.cases.items():
            letter = letters.get(mark)
            own = usable_id(case.headers.get("id", f"{self._run}-{mark}"))
            words = ["ran"] * runs.get(mark, 0) + ["letter"] * (letter is not None)
            # Without a usable id a letter has no record. What Celery runs so has one under another.
            assumed = DEAD[1] if letter is not None else RECORDED[1]
            found[mark] = (", ".join(words), assumed if own is None else state(own))
        return found

    def odd(self, endings: Mapping[str, tuple[str, str]], *expected: tuple[str, str]) -> str:
        odd = {m: ending for m, ending in endings.items() if ending not in expected}
        return "\n".join(f"{self.cases[mark]}: {ending}" for mark, ending in odd.items())


def by_mark(letters: list[Letter]) -> dict[str, Letter]:
    """The letters by their messages' marks; two of one message are a fault."""
    found: dict[str, Letter] = {}
    for letter in letters:
        if letter.job_type == FOLLOWER:
            continue  # it follows the job of a message
        mark = mark_of(letter)
        assert mark not in found, f"two letters of {mark}"
        found[mark] = letter
    return found


def mark_of(letter: Letter) -> str:
    if not letter.args:  # its body could not be read
        return letter.job_id.rpartition("-")[2]
    first = letter.args[0]
    return str(first["label"] if isinstance(first, dict) else first)


def wrong_queues(letters: dict[str, Letter], queue: str) -> set[str]:
    return {letter.queue for letter in letters.values()} - {queue}


def loops(events: list[tuple[str, str]]) -> dict[str, list[str]]:
    """The jobs with more events than one message without a retry can have."""
    events_of: dict[str, list[str]] = {}
    for job_id, event in events:
        events_of.setdefault(job_id, []).append(event)
    return {job_id: names for job_id, names in events_of.items() if len(names) > 2}


@pytest.fixture
def settings(servers: Servers, broker: str) -> Settings:
    at = servers.valkey_url() if broker == "redis" else servers.rabbitmq_url()
    return fresh_settings(servers.valkey_url(), broker_url=at)


@ON_BOTH
def test_a_native_worker_records_each_hostile_message_or_leaves_its_letter(
    harness: ServerHarness,
    settings: Settings,
    broker: str,
    every_value: bool,
    start_worker: Callable[..., Worker],
) -> None:
    worker = start_worker(queues=("exec",), concurrency=2)
    worker.await_log(" ready.")
    redis = broker == "redis"
    sent = Sent(settings, list_key(settings, "exec") if redis else settings.broker_name("exec"))
    sent.push_all(
        cases(every_value=every_value), "exec_act", lambda mark: [{"value": mark, "label": mark}]
    )
    left = harness.leftovers if redis else lambda: count_messages(settings, [sent.queue])
    at_broker = RedisBroker(settings) if redis else RabbitBroker(settings)

    def untold() -> list[str]:
        return sent.untold([*harness.notes.order(), *by_mark(at_broker.letters())])

    eventually(
        lambda: not (untold() or left()) or not worker.running,
        "all of them ended",
        within_s=LONG_S,
        why=lambda: f"{untold()} {left()}\n{worker.log[-4000:]}",
    )
    assert worker.running, worker.log[-5000:]
    letters = by_mark(at_broker.letters())
    records = Records(harness.redis, settings)
    endings = sent.endings(
        Counter(harness.notes.order()), letters, lambda job_id: records.read(job_id).state
    )
    assert not sent.odd(endings, RECORDED, DEAD)
    assert not wrong_queues(letters, "exec")
    assert not loops([(event["job"], event["event"]) for event in harness.events()])


@pytest.fixture(params=["protect", "observe"])
def app(
    request: pytest.FixtureRequest, servers: Servers, broker: str, tmp_path: Path
) -> Iterator[Legacy]:
    ours = broker == "redis"
    with legacy_on(broker, servers, tmp_path, request.param, transport=ours) as legacy:
        yield legacy


@ON_BOTH
def test_an_installed_app_records_each_hostile_message_or_leaves_its_letter(
    app: Legacy, every_value: bool
) -> None:
    worker = app.worker()
    sent = Sent(app.settings, f"{app.prefix}.work")
    chosen = cases(every_value=every_value)
    if app.mode == "observe":
        chosen = [case for case in chosen if str(case) != WAITS_IN_CELERY]
    sent.push_all(chosen, "legacy.mark", lambda mark: [mark])

    def untold() -> list[str]:
        return sent.untold([*app.notes("marks"), *by_mark(app.at_broker.letters())])

    def waiting() -> int:
        return app.at_broker.queued(sent.queue) + app.at_broker.waiting()

    eventually(
        lambda: not (untold() or waiting()) or worker.ended,
        "all of them ended",
        within_s=LONG_S,
        why=lambda: f"{untold()} {waiting()}\n{app.logs()}",
    )
    assert not worker.ended, worker.log[-5000:]
    watched = (FAILED_AFTER_IT_RAN,) if app.mode == "observe" else ()

    def odd() -> str:
        endings = sent.endings(
            Counter(app.notes("marks")),
            by_mark(app.at_broker.letters()),
            lambda job_id: app.record(job_id).get("state", ""),
        )
        return sent.odd(endings, RECORDED, DEAD, *watched)

    # What is only watched is recorded by a thread, after the task has run.
    eventually(lambda: not odd(), "each has its ending", why=odd)
    letters = by_mark(app.at_broker.letters())
    assert not wrong_queues(letters, sent.queue)


@pytest.mark.parametrize("broker", ["redis"])
def test_a_retry_goes_to_the_queue_that_its_message_was_taken_from_whatever_it_names(
    app: Legacy,
) -> None:
    app.worker()
    route = {"exchange": "nobody's", "routing_key": "nobody"}
    job_id = str(uuid.uuid4())
    sound = {"task": "legacy.envelope", "id": job_id}
    push(
        app.settings, f"{app.prefix}.work", [(Case("route", route, delivery=route), sound, [True])]
    )
    if app.mode == "protect":
        app.await_state(job_id, "completed")
        assert app.record(job_id)["queue"] == f"{app.prefix}.work"
    else:
        # Watching changes nothing: Celery itself publishes the retry to where the message says.
        app.await_state(job_id, "retrying")
