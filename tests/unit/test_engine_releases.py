"""Leases that are owed while Redis is away."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from taskyard.engine.lease_releases import Releases


class Door:
    """Records of which only the release is asked; away until it is open."""

    def __init__(self) -> None:
        self.open = False
        self.released: list[tuple[str, str]] = []

    def release(self, job_id: str, holder: str) -> None:
        if not self.open:
            raise RedisConnectionError("away")
        self.released.append((job_id, holder))


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def releases(door: Any) -> Releases:
    return Releases(door)


def test_a_release_is_told_at_once_where_redis_answers(door: Door, releases: Releases) -> None:
    door.open = True
    releases.owe("job-1", "holder-1")
    assert door.released == [("job-1", "holder-1")]


def test_what_could_not_be_released_is_released_when_redis_is_back(
    door: Door, releases: Releases, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        releases.owe("job-1", "holder-1")
        releases.owe("job-2", "holder-2")
    assert {vars(record)["action"] for record in caplog.records} == {"release_unreachable"}
    door.open = True
    releases.settle()
    releases.settle()
    assert door.released == [("job-1", "holder-1"), ("job-2", "holder-2")]
