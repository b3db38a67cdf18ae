"""Which trace tells the end of a process from a failure of the handler's own."""

from __future__ import annotations

import gevent
import pytest
from billiard import common
from celery.exceptions import WorkerTerminate
from celery.worker import state

from taskyard.runner.process_end import ProcessEnd


def end(*, killed: bool = False, limit_s: float | None = None) -> ProcessEnd:
    return ProcessEnd(lambda: killed, limit_s)


@pytest.mark.parametrize("error", [SystemExit(-241), KeyboardInterrupt(), WorkerTerminate(1)])
def test_without_a_trace_it_is_the_handlers_own_whatever_its_class(error: BaseException) -> None:
    end().go_on(error)


def test_a_signal_during_the_attempt_is_the_processs_end(monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = end()
    monkeypatch.setattr(common, "_should_have_exited", [True])
    with pytest.raises(SystemExit) as raised:
        attempt.go_on(ValueError("of the clean-up"))
    assert isinstance(raised.value.__cause__, ValueError)


def test_a_signal_that_an_earlier_attempt_swallowed_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(common, "_should_have_exited", [True])
    end().go_on(SystemExit(3))


def test_a_solo_worker_that_must_end_at_once_ends_its_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempt = end()
    monkeypatch.setattr(state, "should_terminate", 1)
    with pytest.raises(WorkerTerminate):
        attempt.go_on(WorkerTerminate(1))


def test_a_killed_greenlet_goes_on_ending() -> None:
    with pytest.raises(gevent.GreenletExit):
        end(killed=True).go_on(gevent.GreenletExit())


def test_the_pools_hard_limit_is_told_from_a_timeout_of_the_handlers_own() -> None:
    end(limit_s=60).go_on(gevent.Timeout(7))
    with pytest.raises(gevent.Timeout):
        end(limit_s=60).go_on(gevent.Timeout(60))
