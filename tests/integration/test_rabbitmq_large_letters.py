"""A letter larger than the message it is about: RabbitMQ takes it, and the mirror reads it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from servers import RabbitMQ, Servers
from support.letters import make_letter
from support.yard import fresh_settings
from taskyard.broker import connection
from taskyard.deadletters import LetterBox, mirror_queue
from taskyard.mirror.kombu_letters import KombuLetters
from taskyard.wire.letter_envelope import Letter, RawMessage

pytestmark = pytest.mark.slow

# The default of RabbitMQ 4, also where the server at hand takes more by itself.
MOST_BYTES = 16 * 1024 * 1024


def test_a_message_that_was_just_taken_fits_with_its_letter(
    servers: Servers, tmp_path: Path
) -> None:
    text = "".join(f"{number:x} " for number in range(MOST_BYTES // 7))
    raw = RawMessage(body=f'[["{text}"], {{}}, {{}}]'.encode(), headers={"task": "large"})
    letter = make_letter(message=raw, args=[text])
    assert len(raw.body) < MOST_BYTES < len(letter.encode())
    server = RabbitMQ(tmp_path / "rabbitmq", f"max_message_size = {MOST_BYTES}")
    try:
        server.start()
        settings = fresh_settings(servers.valkey_url(), broker_url=server.url)
        with closing(LetterBox(settings)) as box:
            box.post(letter)
        source = KombuLetters(connection(settings), mirror_queue(settings), prefetch=10)
        with closing(source):
            (delivery,) = source.take(1, wait_s=20)
    finally:
        server.stop()
    assert Letter.parse(delivery.body) == letter
