"""The names that a switch may be turned on for, and what is said where Redis does not answer."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from taskyard.control.switch_request import KnownNames
from taskyard.errors import Refused
from taskyard.settings import Settings
from taskyard.switches import SwitchField


@pytest.fixture
def silent() -> Any:
    """A client whose Redis answers nothing."""
    error = RedisConnectionError("connection refused")
    return Mock(**{"zrange.side_effect": error, "pipeline.side_effect": error})


def test_an_unknown_queue_is_refused_with_what_redis_could_not_say(silent: Any) -> None:
    names = KnownNames.of(Settings(), silent)
    with pytest.raises(Refused, match=r"no queue 'shop'.*workers have \(connection refused\)"):
        names.check(SwitchField.pause("shop"))


def test_a_queue_of_the_settings_and_all_are_known_without_redis(silent: Any) -> None:
    names = KnownNames.of(Settings(), silent)
    for field in (SwitchField.pause("exec"), SwitchField.kill("all")):
        names.check(field)


def test_a_job_type_is_refused_without_a_word_of_the_workers_queues(silent: Any) -> None:
    names = KnownNames.of(Settings(), silent)
    with pytest.raises(Refused) as caught:
        names.check(SwitchField.kill("type:nothing"))
    assert "Redis" not in str(caught.value)
