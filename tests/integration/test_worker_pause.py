"""Workers under pauses and kill switches: what is held, what comes back, and in which order."""

from __future__ import annotations

import signal
from collections.abc import Callable
from time import monotonic

import pytest

from servers import Servers
from support.held_switches import HeldSwitches
from support.rabbitmq import count_messages
from support.waiting import eventually
from support.worker import Worker
from support.yard import ServerHarness, fresh_settings
from taskyard.broker import connection
from taskyard.client import JobHandle
from taskyard.jobs.states import State
from taskyard.records import VerbTarget
from taskyard.settings import Settings
from taskyard.switches import Mode

pytestmark = pytest.mark.slow

PAUSE = "pause queue:exec"
PREFETCHED = 6
# Taskyard publishes a message again when it has returned ten times.
DELIVERY_LIMIT = 12
# A worker reads the switches every second.
RESUMED_WITHIN_S = 2.0
ONE_AT_A_TIME = ["--prefetch-multiplier", "8", "-l", "INFO"]


@pytest.fixture(params=["redis", "classic", "quorum"])
def settings(servers: Servers, request: pytest.FixtureRequest) -> Settings:
    limits = {"delivery_limit": 3}
    if request.param == "redis":
        return fresh_settings(servers.valkey_url(), **limits)
    urls = {"broker_url": servers.rabbitmq_url()}
    kind = {"rabbitmq_queue_type": request.param}
    known = fresh_settings(servers.valkey_url(), **urls, **kind, **limits)
    if request.param == "quorum":
        # RabbitMQ 3.10 has no limit of its own; 4.0 drops a message after 20 returns.
        with connection(known) as broker:
            broker.default_channel.queue_declare(
                known.broker_name("exec"),
                durable=True,
                auto_delete=False,
                arguments={"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT},
            )
    return known


@pytest.fixture
def switches(harness: ServerHarness) -> HeldSwitches:
    return HeldSwitches(harness.redis, harness.settings.namespace)


@pytest.fixture
def only_redis(settings: Settings) -> None:
    if not is_redis(settings):
        pytest.skip("RabbitMQ has no delay store to look into")


def is_redis(settings: Settings) -> bool:
    return settings.need_broker_url().startswith("redis")


def ready(harness: ServerHarness, queue: str = "exec") -> int:
    """How many messages wait in the queue and are in no worker."""
    if is_redis(harness.settings):
        return harness.queued()
    return count_messages(harness.settings, [harness.settings.broker_name(queue)])


def await_ready(harness: ServerHarness, count: int, worker: Worker) -> None:
    eventually(
        lambda: ready(harness) == count,
        f"{count} messages in the queue",
        why=lambda: f"{ready(harness)} are there\n{worker.log[-6000:]}",
    )


def await_runs(harness: ServerHarness, *jobs: JobHandle) -> float:
    """Wait until each job has started; how many seconds that took."""
    began = monotonic()
    eventually(lambda: all(harness.runs(job) for job in jobs), "every job runs")
    return monotonic() - began


def test_a_paused_queues_jobs_wait_and_those_of_others_run(
    harness: ServerHarness, switches: HeldSwitches, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker(concurrency=1)
    switches.hold(PAUSE)
    held = [harness.act() for _ in range(3)]
    other = harness.act(job_type="locator_act")
    assert harness.await_end(other) is State.COMPLETED
    await_ready(harness, 3, worker)
    assert [harness.runs(job) for job in held] == [0, 0, 0]
    switches.off(PAUSE)
    assert await_runs(harness, held[0]) < RESUMED_WITHIN_S
    assert [harness.await_end(job) for job in held] == [State.COMPLETED] * 3
    assert [int(job.record().number("deliveries")) for job in held] == [0, 0, 0]
    assert [harness.runs(job) for job in held] == [1, 1, 1]


def test_a_worker_that_starts_while_its_queue_is_paused_takes_nothing_from_it(
    harness: ServerHarness, switches: HeldSwitches, start_worker: Callable[..., Worker]
) -> None:
    held = [harness.act() for _ in range(3)]
    switches.hold("kill all")
    operators = harness.act(job_type="ops_act")
    worker = start_worker(concurrency=1)
    assert harness.await_end(operators) is State.COMPLETED, worker.log[-6000:]
    assert ready(harness) == 3
    assert "returns" not in worker.log.replace("returns the 0 messages", "")
    switches.off("kill all")
    assert [harness.await_end(job) for job in held] == [State.COMPLETED] * 3


def test_prefetched_messages_go_back_and_run_in_their_order(
    harness: ServerHarness, switches: HeldSwitches, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker(concurrency=1, queues=("exec",), options=ONE_AT_A_TIME)
    running = harness.act(gate="open", label="running")
    await_runs(harness, running)
    labels = [f"job {number}" for number in range(PREFETCHED + 6)]
    behind = [harness.act(label=label) for label in labels]
    await_ready(harness, len(behind) - 7, worker)
    switches.hold(PAUSE)
    await_ready(harness, len(behind), worker)
    harness.open_gate("open")
    assert harness.await_end(running) is State.COMPLETED, "what runs goes on"
    assert ready(harness) == len(behind)
    switches.off(PAUSE)
    for job in behind:
        assert harness.await_end(job) is State.COMPLETED
    assert harness.notes.order() == ["running", *labels]
    assert [int(job.record().number("deliveries")) for job in behind] == [0] * len(behind)


@pytest.mark.parametrize("rounds", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_pauses_in_a_row_use_up_no_limit(
    harness: ServerHarness,
    switches: HeldSwitches,
    start_worker: Callable[..., Worker],
    rounds: int,
) -> None:
    worker = start_worker(concurrency=1, queues=("exec",), options=ONE_AT_A_TIME)
    running = harness.act(gate="open")
    await_runs(harness, running)
    behind = [harness.act(label=f"{number}") for number in range(PREFETCHED)]
    for _ in range(rounds):
        await_ready(harness, 0, worker)
        switches.hold(PAUSE)
        await_ready(harness, PREFETCHED, worker)
        switches.off(PAUSE)
    harness.open_gate("open")
    assert harness.await_end(running) is State.COMPLETED
    for job in behind:
        assert harness.await_end(job) is State.COMPLETED, worker.log[-6000:]
    assert [harness.runs(job) for job in behind] == [1] * PREFETCHED
    assert [int(job.record().number("attempts")) for job in behind] == [0] * PREFETCHED


def test_jobs_that_begin_refuses_again_and_again_stay_whole(
    harness: ServerHarness, switches: HeldSwitches, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker(concurrency=2, queues=("exec",))
    jobs: list[JobHandle] = []
    for number in range(6):
        # Before the worker reads the switch, it takes the job: only `begin` holds it.
        switches.hold(PAUSE)
        jobs.append(harness.act(label=f"{number}"))
        await_ready(harness, len(jobs), worker)
        assert [harness.runs(job) for job in jobs] == [0] * len(jobs)
        switches.off(PAUSE)
        switches.hold(PAUSE)
    switches.off(PAUSE)
    for job in jobs:
        assert harness.await_end(job) is State.COMPLETED, worker.log[-6000:]
    assert [harness.runs(job) for job in jobs] == [1] * len(jobs)
    assert harness.event_names(jobs[0]) == ["admit", "begin", "complete"]


def test_a_refused_message_does_not_come_back_while_the_switch_is_on(
    harness: ServerHarness, switches: HeldSwitches, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker(concurrency=1, queues=("exec", "locator"))
    switches.hold(PAUSE)
    held = harness.act()
    await_ready(harness, 1, worker)
    for _ in range(5):
        assert harness.await_end(harness.act(job_type="locator_act")) is State.COMPLETED
    assert worker.log.count("a switch holds queue") == 1
    assert worker.log.count(f"[{held.job_id}] received") <= 1
    assert harness.runs(held) == 0


def test_an_operators_cancelled_consumer_stays_cancelled_after_a_pause(
    harness: ServerHarness, switches: HeldSwitches, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker(concurrency=1, queues=("exec", "locator"))
    control, name = harness.yard.app.control, harness.settings.broker_name("exec")
    switches.hold(PAUSE)
    worker.await_log("a switch holds queue")
    assert control.cancel_consumer(name, reply=True, limit=1, timeout=10)
    switches.off(PAUSE)
    worker.await_log("no switch holds queue")
    job = harness.act()
    assert harness.await_end(harness.act(job_type="locator_act")) is State.COMPLETED
    assert ready(harness) == 1, worker.log[-6000:]
    switches.hold(PAUSE)
    assert control.add_consumer(name, reply=True, limit=1, timeout=10)
    eventually(lambda: worker.log.count("a switch holds queue") > 1, "held again")
    await_ready(harness, 1, worker)
    assert harness.runs(job) == 0
    switches.off(PAUSE)
    assert harness.await_end(job) is State.COMPLETED


def test_a_worker_drains_during_a_pause(
    harness: ServerHarness, switches: HeldSwitches, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker(concurrency=1, queues=("exec",), options=ONE_AT_A_TIME)
    running = harness.act(gate="open")
    await_runs(harness, running)
    behind = [harness.act(label=f"{number}") for number in range(PREFETCHED)]
    await_ready(harness, 0, worker)
    switches.hold(PAUSE)
    worker.await_log("a switch holds queue")
    worker.kill(signal.SIGTERM)
    harness.open_gate("open")
    assert worker.wait() == 0
    assert harness.await_end(running) is State.COMPLETED
    await_ready(harness, PREFETCHED, worker)
    switches.off(PAUSE)
    start_worker("next", concurrency=1, queues=("exec",))
    for job in behind:
        assert harness.await_end(job) is State.COMPLETED
    assert harness.notes.order()[1:] == [f"{number}" for number in range(PREFETCHED)]


def test_delayed_jobs_that_come_due_during_a_pause_wait_in_their_queue(
    harness: ServerHarness, switches: HeldSwitches, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker(concurrency=1, queues=("exec",))
    job = harness.act(countdown=2)
    switches.hold(PAUSE)
    worker.await_log("a switch holds queue")
    await_ready(harness, 1, worker)
    assert harness.runs(job) == 0
    switches.off(PAUSE)
    assert harness.await_end(job) is State.COMPLETED


@pytest.mark.usefixtures("only_redis")
@pytest.mark.parametrize("switch", ["kill type:exec_act", "kill queue:exec"])
def test_jobs_of_a_switch_that_holds_only_some_wait_in_the_delay_store_and_return_in_order(
    harness: ServerHarness,
    switches: HeldSwitches,
    start_worker: Callable[..., Worker],
    switch: str,
) -> None:
    worker = start_worker(concurrency=1)
    before = harness.act(gate="open")
    await_runs(harness, before)
    jobs = [harness.act(label=f"{number}") for number in range(PREFETCHED)]
    # As if they had come by a producer that asks nobody, after the switch was turned on.
    switches.turn(switch, Mode.HOLD if "type" in switch else Mode.REFUSE, since_us=1)
    harness.open_gate("open")
    assert harness.await_end(before) is State.COMPLETED
    assert harness.await_end(harness.act(job_type="locator_act")) is State.COMPLETED
    eventually(lambda: harness.delayed() == PREFETCHED, "parked", why=lambda: worker.log[-6000:])
    harness.redis.script_flush()
    assert [harness.runs(job) for job in jobs] == [0] * PREFETCHED
    switches.off(switch)
    for job in jobs:
        assert harness.await_end(job) is State.COMPLETED
    assert harness.notes.order()[-PREFETCHED:] == [f"{number}" for number in range(PREFETCHED)]
    assert [int(job.record().number("deliveries")) for job in jobs] == [0] * PREFETCHED
    harness.await_quiet()
    assert not harness.broker.exists(f"{harness.settings.namespace}:delayed:parked")


@pytest.mark.usefixtures("only_redis")
def test_a_held_job_that_is_cancelled_does_not_run(
    harness: ServerHarness, switches: HeldSwitches, start_worker: Callable[..., Worker]
) -> None:
    job = harness.act()
    switches.hold("kill type:exec_act")
    worker = start_worker(concurrency=1)
    eventually(lambda: harness.delayed() == 1, "parked", why=lambda: worker.log[-6000:])
    target = VerbTarget(job.job_id, job_type="exec_act", queue="exec")
    harness.yard.records.verbs.cancel(target, "request", "ada")
    assert job.state() is State.CANCELLED
    switches.off("kill type:exec_act")
    harness.await_quiet()
    assert harness.runs(job) == 0


@pytest.mark.usefixtures("only_rabbitmq")
def test_a_worker_keeps_to_a_pause_that_redis_has_forgotten(
    harness: ServerHarness, switches: HeldSwitches, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker(concurrency=1)
    switches.hold(PAUSE)
    job = harness.act()
    worker.await_log("a switch holds queue")
    await_ready(harness, 1, worker)
    # As a flush does: records and switches are gone, the message is at RabbitMQ.
    namespace = harness.settings.namespace
    harness.redis.delete(f"{namespace}:switches", f"{namespace}:job:{job.job_id}")
    began = monotonic()
    eventually(lambda: monotonic() > began + 4, "the worker reads the switches some times")
    assert harness.await_end(harness.act(job_type="locator_act")) is State.COMPLETED
    assert (ready(harness), harness.runs(job)) == (1, 0)
    switches.hold(PAUSE)  # The relay writes it again, with its version.
    switches.off(PAUSE)
    assert harness.await_end(job) is State.COMPLETED


@pytest.mark.parametrize("pool", ["threads", "solo", "gevent"])
def test_every_pool_obeys_a_pause(
    harness: ServerHarness,
    switches: HeldSwitches,
    start_worker: Callable[..., Worker],
    pool: str,
) -> None:
    worker = start_worker(queues=("exec",), options=["--pool", pool, "--prefetch-multiplier", "4"])
    assert harness.await_end(harness.act()) is State.COMPLETED
    switches.hold(PAUSE)
    jobs = [harness.act(label=f"{number}") for number in range(PREFETCHED)]
    worker.await_log("a switch holds queue")
    await_ready(harness, PREFETCHED, worker)
    assert [harness.runs(job) for job in jobs] == [0] * PREFETCHED
    switches.off(PAUSE)
    for job in jobs:
        assert harness.await_end(job) is State.COMPLETED, worker.log[-6000:]
    assert [harness.runs(job) for job in jobs] == [1] * PREFETCHED
    assert "Connection to broker lost" not in worker.log


@pytest.fixture
def only_rabbitmq(settings: Settings) -> None:
    if is_redis(settings):
        pytest.skip("Redis releases parked messages at once")


@pytest.mark.usefixtures("only_rabbitmq")
def test_rabbitmq_looks_again_every_half_minute(
    harness: ServerHarness, switches: HeldSwitches, start_worker: Callable[..., Worker]
) -> None:
    job = harness.act()
    switches.hold("kill type:exec_act")
    start_worker(concurrency=1)
    assert harness.await_end(harness.act(job_type="locator_act")) is State.COMPLETED
    assert harness.runs(job) == 0
    switches.off("kill type:exec_act")
    eventually(lambda: job.state() is State.COMPLETED, "it returns by itself", within_s=60)
    assert int(job.record().number("deliveries")) == 0
