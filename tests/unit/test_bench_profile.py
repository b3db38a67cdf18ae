"""Samples become shares of steps, by their innermost frame that a step knows."""

from bench.profile import CHILD, MAIN, shares

LOOP = "kombu.asynchronous.hub:Hub.create_loop;celery.worker.loops:asynloop"
WORKLOOP = "billiard.pool:Worker.workloop;billiard.process:BaseProcess.run"


def test_waiting_for_the_next_job_is_left_out() -> None:
    stacks = {
        f"kombu.utils.eventio:_epoll.poll;{LOOP}": 900,
        f"redis.connection:send;taskyard.transport.channel:Channel.pop;{LOOP}": 10,
    }
    found = shares(stacks, MAIN)
    assert found == {
        "pop and acknowledgements: one script a batch": 100.0,
        "everything else": 0.0,
    }


def test_an_event_sent_while_a_result_is_handled_counts_as_event() -> None:
    result = f"celery.worker.request:Request.on_success;billiard.pool:ApplyResult._set;{LOOP}"
    stacks = {result: 1, f"json:dumps;celery.events.dispatcher:EventDispatcher.send;{result}": 3}
    found = shares(stacks, MAIN)
    assert next(iter(found.items())) == ("events for Flower", 75.0)
    assert found["result from the child: read, noted, acknowledged"] == 25.0


def test_a_childs_round_trips_are_told_apart() -> None:
    def call(name: str) -> str:
        step = f"taskyard.records.attempt_scripts:AttemptScripts.{name}"
        steps = f"{step};taskyard.runner.attempt_pipeline:Runner.run"
        return f"redis.connection:read_response;{steps};celery.app.trace:trace;{WORKLOOP}"

    found = shares({call("begin"): 3, call("finish"): 1}, CHILD)
    assert [f"{step[:8]} {share:g}" for step, share in found.items()] == [
        "`begin`: 75",
        "`finish` 25",
        "everythi 0",
    ]


def test_an_unknown_frame_is_everything_else_and_comes_last() -> None:
    found = shares({"somewhere:else": 9, f"celery.app.trace:trace;{WORKLOOP}": 1}, CHILD)
    assert list(found) == ["Celery's tracing around it", "everything else"]
    assert found["everything else"] == 90.0


def test_without_samples_there_are_no_shares() -> None:
    assert shares({}, MAIN) == {}
