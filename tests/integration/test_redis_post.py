"""Letters on Redis: taken by the mirror's own queue, or an error that says what to do."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import redis
from kombu import Queue

from servers import Servers
from support.letters import make_letter
from support.yard import fresh_settings, letters_key
from taskyard.broker import connection, own_layout
from taskyard.deadletters import LetterBox, exchange, mirror_queue
from taskyard.errors import Unroutable
from taskyard.settings import Settings
from taskyard.store import connect


@pytest.fixture
def settings(servers: Servers) -> Settings:
    return fresh_settings(servers.valkey_url())


@pytest.fixture
def client(settings: Settings) -> Iterator[redis.Redis]:
    with connect(settings.need_broker_url()) as made:
        yield made


@pytest.fixture
def box(settings: Settings) -> Iterator[LetterBox]:
    made = LetterBox(settings)
    yield made
    made.close()


def bindings(settings: Settings) -> str:
    return f"{own_layout(settings).prefix}_kombu.binding.{exchange(settings).name}"


def bind_own_queue(settings: Settings) -> str:
    name = f"{settings.namespace}.users-own"
    with connection(settings) as broker:
        Queue(name, exchange(settings), routing_key="#")(broker.default_channel).declare()
    return name


def unbind_mirror(client: redis.Redis, settings: Settings) -> None:
    mirror = mirror_queue(settings).name.encode()
    members: set[bytes] = client.smembers(bindings(settings))  # type: ignore[assignment]
    gone = [one for one in members if mirror in one]
    assert client.srem(bindings(settings), *gone) == 1


def test_a_letter_reaches_the_mirror_although_only_a_users_queue_is_still_bound(
    settings: Settings, client: redis.Redis, box: LetterBox
) -> None:
    box.post(make_letter())
    own = bind_own_queue(settings)
    unbind_mirror(client, settings)

    box.post(make_letter())

    assert client.llen(letters_key(settings)) == 2
    assert client.llen(own_layout(settings).key(own, 0)) == 1


def test_where_the_mirrors_queue_cannot_be_bound_the_letter_is_refused_with_a_next_step(
    settings: Settings, client: redis.Redis, box: LetterBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.post(make_letter())
    own = bind_own_queue(settings)
    unbind_mirror(client, settings)
    monkeypatch.setattr(box._post, "prepare", lambda _: None)

    with pytest.raises(Unroutable, match="maxmemory-policy must be noeviction") as caught:
        box.post(make_letter())

    assert mirror_queue(settings).name in str(caught.value)
    assert f"leads to {own}" in str(caught.value)
    assert client.llen(own_layout(settings).key(own, 0)) == 0


def test_each_death_is_one_warning_with_job_letter_and_cause(
    box: LetterBox, caplog: pytest.LogCaptureFixture
) -> None:
    letter = make_letter(error_message="no customer; password=hunter2")
    with caplog.at_level(logging.WARNING):
        box.post(letter)
    (record,) = [one for one in caplog.records if vars(one).get("action") == "dead_lettered"]
    text = record.getMessage()
    assert text.startswith(f"job {letter.job_id} ({letter.job_type}) became dead letter ")
    assert "no customer" in text
    assert "hunter2" not in text
