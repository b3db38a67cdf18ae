"""What dead workers hold is named before it comes back: who held it, when it is back, or now."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from support.held_shop import OWNER, HeldShop
from taskyard.install import AnyQueuePublisher
from taskyard.jobs.attempt_outcomes import Decision
from taskyard.reconcile import Kind, Reconciler, Report
from taskyard.records import GONE_S
from taskyard.settings import Settings

HELD = Kind.HELD_BY_DEAD_WORKER


class Shop(HeldShop):
    """Compared with what the records say."""

    def __init__(self, settings: Settings, database: Engine) -> None:
        super().__init__(settings)
        self.publisher = AnyQueuePublisher(settings, self.records)
        self.reconciler = Reconciler(settings, database, self.records, self.publisher)

    def look(self, **options: Any) -> Report:
        return self.reconciler.run(**options)

    def detail(self, job: str) -> str:
        """What a look says of the one job that a dead worker holds."""
        report = self.look()
        assert report.examples[HELD] == [job], report.document()
        return report.details[job]


@pytest.fixture
def shop(settings: Settings, empty_database: Engine) -> Iterator[Shop]:
    made = Shop(settings, empty_database)
    yield made
    made.reconciler.close()
    made.publisher.close()
    made.close()


# -- by our transport ------------------------------------------------------------------------------


def test_a_running_job_of_a_dead_owner_is_named_with_who_gives_it_back(shop: Shop) -> None:
    job = shop.begin()
    shop.hold(job)
    shop.owner()
    shop.owner("host.2.def", silent_s=-600)
    detail = shop.detail(job)
    assert detail.startswith("its lease expired at 20")
    assert "process host.1, which is dead, has held it since 20" in detail
    assert detail.endswith("1 consumer of the same broker will give back what it held")
    assert "; it comes back at about 20" in detail


def test_without_a_worker_to_return_it_the_report_says_which_worker_to_start(shop: Shop) -> None:
    job = shop.begin()
    shop.hold(job)
    shop.owner()
    assert shop.detail(job).endswith(
        f"no running worker would give it back: start one for {shop.queue}"
    )


@pytest.mark.parametrize("state", ["accepted", "unrecorded", "retrying", "dead_lettered"])
def test_a_job_that_is_not_running_is_stranded_by_a_dead_owner_too(shop: Shop, state: str) -> None:
    match state:
        case "accepted":
            job = shop.admit()
        case "unrecorded":
            job = str(uuid.uuid4())
        case _:
            job = shop.begin()
            decided = Decision.RETRYING if state == "retrying" else Decision.DEAD_LETTERED
            shop.finish(job, decided)
            long_ago = shop.records.now_us() - 3_600_000_000
            shop.client.hset(shop.records.keys.record(job), "decided", long_ago)
    shop.hold(job)
    shop.owner()
    assert "process host.1, which is dead" in shop.detail(job)


def test_a_message_of_another_namespace_under_the_same_keys_is_none_of_its_own(shop: Shop) -> None:
    """Apps without a prefix share the keys of what they hold, whatever their namespaces."""
    theirs = json.dumps([{"headers": {"id": str(uuid.uuid4())}}, "", "orders_of_others"])
    shop.client.hset("unacked", f"{OWNER}:9", theirs)
    shop.client.zadd("unacked_index", {f"{OWNER}:9": time.time() - 30})
    try:
        report = shop.look(repair=True)
        assert (report.drift[HELD], report.suspected) == (0, {})
        assert shop.client.hexists("unacked", f"{OWNER}:9")
    finally:
        shop.client.hdel("unacked", f"{OWNER}:9")
        shop.client.zrem("unacked_index", f"{OWNER}:9")


def test_what_a_living_owner_holds_is_in_good_hands(shop: Shop) -> None:
    for job in (shop.begin(), shop.admit()):
        shop.hold(job, tag=f"{OWNER}:{job[:1].encode().hex()}")
    shop.owner(silent_s=-600)
    report = shop.look()
    assert (report.drift[HELD], report.suspected) == (0, {})


def test_a_lease_that_runs_is_somebodys(shop: Shop) -> None:
    shop.hold(shop.begin(expired_s=-20))
    shop.owner()
    assert shop.look().drift[HELD] == 0


def test_a_job_whose_message_waits_as_well_goes_on_without_it(shop: Shop) -> None:
    job = shop.begin()
    shop.hold(job)
    shop.owner()
    shop.client.lpush(shop.layout.key(shop.queue, 0), json.dumps({"headers": {"id": job}}))
    assert shop.look().drift[HELD] == 0


def test_an_owner_that_nobody_knows_has_the_visibility_timeout(shop: Shop) -> None:
    job = shop.begin()
    shop.hold(job)
    shop.member("shop@alive")
    assert shop.detail(job).endswith("after the visibility timeout (600 s)")


def test_repairing_gives_it_back_to_the_list_that_its_fleet_reads(shop: Shop) -> None:
    job = shop.begin()
    shop.hold(job)
    shop.owner()
    report = shop.look(repair=True)
    assert report.repaired[HELD] == 1
    (raw,) = shop.client.lrange(shop.layout.key(shop.queue, 3), 0, -1)
    assert json.loads(raw)["headers"] == {"id": job, "redelivered": True}
    assert not shop.client.exists(shop.layout.unacked_key, shop.layout.index_key)
    assert shop.look().drift[HELD] == 0


def test_as_many_are_named_as_are_asked_for(shop: Shop) -> None:
    jobs = {shop.begin() for _ in range(30)}
    for number, job in enumerate(jobs):
        shop.hold(job, tag=f"{OWNER}:{number}")
    shop.owner()
    assert len(shop.look().examples[HELD]) == 20
    assert set(shop.look(most_examples=30).examples[HELD]) == jobs


# -- by kombu's transport --------------------------------------------------------------------------


def test_by_kombus_transport_the_record_names_the_worker_and_the_wait(shop: Shop) -> None:
    job = shop.begin("shop@dead")
    shop.hold(job, tag=str(uuid.uuid4()))
    shop.member("shop@other")
    detail = shop.detail(job)
    assert "worker shop@dead, which is dead, has held it since" in detail
    assert detail.endswith(
        "after the visibility timeout (600 s); Taskyard's transport gives back within seconds"
    )


def test_where_a_worker_returns_by_the_record_it_says_so(shop: Shop) -> None:
    job = shop.begin("shop@dead")
    shop.hold(job, tag=str(uuid.uuid4()))
    shop.member("shop@other", returns=True)
    assert shop.detail(job).endswith(
        "a worker that protects its task gives it back; at the latest after the visibility "
        "timeout (600 s)"
    )


def test_a_worker_that_lives_may_be_late_with_its_lease(shop: Shop) -> None:
    shop.hold(shop.begin("shop@alive"), tag=str(uuid.uuid4()))
    shop.member("shop@alive")
    assert shop.look().drift[HELD] == 0


def test_what_a_dead_worker_said_it_held_is_named_though_it_has_not_begun(shop: Shop) -> None:
    job = shop.admit()
    shop.hold(job, tag="t")
    shop.member("shop@dead", silent_s=GONE_S + 1, held=("t",))
    assert "worker shop@dead, which is dead" in shop.detail(job)


def test_what_nobody_says_he_holds_is_suspected_and_it_says_why(shop: Shop) -> None:
    shop.hold(shop.admit(), tag="long", taken_s=90)
    shop.hold(shop.admit(), tag="recent", taken_s=5)
    shop.hold(shop.admit(), tag="told", taken_s=90)
    shop.member("shop@alive", held=("told",))
    report = shop.look()
    assert (report.drift[HELD], report.suspected) == (0, {"held_unknown": 1})
    assert report.unseen[0].startswith("kombu's transport does not say who holds a message")


@pytest.mark.parametrize("heard_of", [True, False])
def test_only_from_a_worker_that_was_heard_of_a_repair_takes_it(shop: Shop, heard_of: bool) -> None:
    shop.hold(shop.begin("shop@dead"), tag="t")
    if heard_of:
        shop.member("shop@dead", silent_s=GONE_S + 1)
    assert shop.look(repair=True).repaired[HELD] == heard_of
