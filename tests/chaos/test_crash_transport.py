"""Consumers killed under load: kombu's own Redis transport loses messages, ours none.

Both halves run here, one after the other, on the same server. A message counts as lost when it was
published and is neither handled, nor waiting, nor recorded as unacknowledged.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import Servers
from support.crash import Kills
from support.post import Post

pytestmark = pytest.mark.slow

MESSAGES = 20_000
KILLS = 40
# The gap of kombu's transport is small: rounds of kills until one hits it.
ROUNDS = 12


@pytest.fixture
def post(servers: Servers) -> Iterator[Post]:
    opened = Post(servers.valkey_url())
    yield opened
    opened.close()


def fill(post: Post, start: int, count: int) -> set[str]:
    """Publish numbered messages: one by kombu as the pattern, the rest like it."""
    post.send("pattern")
    pattern = post.redis.lpop(post.queue()).decode()
    document = json.loads(pattern)
    bodies = [json.dumps(number) for number in range(start, start + count)]
    document["properties"].pop("body_encoding")
    messages = [json.dumps({**document, "body": body}) for body in bodies]
    for first in range(0, count, 1000):
        post.redis.lpush(post.queue(), *messages[first : first + 1000])
    return set(bodies)


def bodies_in(raws: list[bytes]) -> set[str]:
    found = [json.loads(raw) for raw in raws]
    return {(each[0] if isinstance(each, list) else each)["body"] for each in found}


def lost(post: Post, sent: set[str]) -> set[str]:
    handled = {raw.decode() for raw in post.redis.smembers(f"{post.name}:done")}
    held = list(post.redis.hvals(post.options["unacked_key"]))
    return sent - handled - bodies_in(post.waiting()) - bodies_in(held)


def kill_consumers(post: Post, *, stock: bool) -> None:
    options = post.options if stock else {**post.options, **post.own}
    kills = Kills(post.url, post.queue(), f"{post.name}:done", stock, KILLS, options)
    subprocess.run(
        [sys.executable, "-m", "support.crash", kills.encode()],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        check=True,
        timeout=120,
    )


@pytest.mark.timeout(600)
def test_killed_consumers_lose_messages_with_kombus_transport_and_none_with_ours(
    post: Post,
) -> None:
    sent: set[str] = set()
    missing: set[str] = set()
    rounds = 0
    while not missing and rounds < ROUNDS:
        rounds += 1
        if len(post.waiting()) < MESSAGES // 2:
            sent |= fill(post, len(sent), MESSAGES)
        kill_consumers(post, stock=True)
        missing = lost(post, sent)
    assert missing, f"kombu's own transport lost nothing in {rounds * KILLS} kills"
    handled = post.redis.scard(f"{post.name}:done")
    assert handled > 100

    post.redis.delete(*post.redis.keys(f"*{post.name}*"))
    sent = fill(post, 0, MESSAGES)
    for _ in range(max(rounds, 2)):
        if len(post.waiting()) < MESSAGES // 2:
            sent |= fill(post, len(sent), MESSAGES)
        kill_consumers(post, stock=False)
        assert not lost(post, sent)
    assert post.redis.scard(f"{post.name}:done") > 100
