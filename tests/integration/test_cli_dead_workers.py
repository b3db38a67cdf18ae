"""After a kill: what `jobs show`, `check` and `reconcile` say, and that they say nothing before."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from servers import Servers
from support.held_shop import OWNER, HeldShop
from support.shell import Shell
from taskyard.inspection.job_holder import find_holder
from taskyard.ops.cli.checks import dead_workers
from taskyard.records import FORGOTTEN_S, GONE_S
from taskyard.settings import load


@pytest.fixture
def shop(shell: Shell) -> Iterator[HeldShop]:
    made = HeldShop(load(shell.variables, shell.folder).settings)
    yield made
    made.close()


def test_by_our_transport_the_owner_is_gone_and_others_give_it_back(
    shell: Shell, shop: HeldShop
) -> None:
    job = shop.begin("shop@dead", expired_s=180)
    shop.hold(job)
    shop.owner()
    shop.owner("host.2.def", silent_s=-600)  # lives however slow this machine is
    shop.member("shop@dead", silent_s=GONE_S + 60, own=True, queues=(shop.queue,))
    shown = shell.run("jobs", "show", job)
    hands = shell.run("jobs", "show", job, "--json").document["hands"]
    checked = shell.run("check")
    reconciled = shell.run("reconcile")

    assert_agree(shell, job, checked.out)
    assert f"queue     {shop.queue}\n" in shown.out  # without the priority, which is unknown
    assert "lease     expired 3m ago, 20" in shown.out
    assert "; worker shop@dead is dead\n" in shown.out
    assert "message   held by process host.1, which is dead; it comes back at about 20" in shown.out
    assert (hands["lease_expired"], hands["worker_lives"]) == (True, False)
    assert (hands["message_place"], hands["held_by_dead"]) == ("dead worker", "process host.1")
    assert hands["back_at"] > hands["lease_until"]
    assert "! workers    worker shop@dead is dead: its last heartbeat came 1m ago" in checked.out
    assert f"did not sign off, and it consumed {shop.queue}. 1 job that it had" in checked.out
    assert "Its messages come back within seconds if another worker of its app" in checked.out
    assert reconciled.code == 1
    assert "held_by_dead_worker" in reconciled.out
    assert "comes back at about" in " ".join(reconciled.out.split())


def test_by_kombus_transport_it_says_the_wait_and_what_would_be_sooner(
    shell: Shell, shop: HeldShop
) -> None:
    job = shop.begin("shop@dead")
    shop.hold(job, tag=str(uuid.uuid4()))
    shop.member("shop@dead", silent_s=GONE_S + 1, queues=(shop.queue,))
    shown = shell.run("jobs", "show", job)
    checked = shell.run("check")

    assert (
        "message   held by worker shop@dead, which is dead; it comes back at about 20" in shown.out
    )
    assert (
        "after the visibility timeout (600 s); Taskyard's transport gives back within seconds"
        in shown.out
    )
    assert "Its messages come back after the visibility timeout, 600 s; with" in checked.out


def test_while_all_live_nothing_of_it_is_said(shell: Shell, shop: HeldShop) -> None:
    job = shop.begin("shop@alive", expired_s=-20)
    shop.hold(job)
    shop.owner(silent_s=-600)
    shop.member("shop@alive", silent_s=-600, own=True)
    shown = shell.run("jobs", "show", job)

    assert ", renewed by shop@alive\n" in shown.out
    assert "message " not in shown.out
    assert "is dead" not in shell.run("check").out


def test_a_worker_whose_name_lives_again_is_not_missed(shell: Shell, shop: HeldShop) -> None:
    shop.member("shop@again", silent_s=GONE_S + 60)
    shop.member("shop@again", silent_s=-600)
    assert "is dead" not in shell.run("check").out


def test_only_the_last_worker_of_a_name_is_missed(shell: Shell, shop: HeldShop) -> None:
    for silent_s in (180, 120, 60):
        shop.member("shop@dead", silent_s=GONE_S + silent_s, queues=(shop.queue,))
    checked = shell.run("check").out
    assert checked.count("worker shop@dead is dead") == 1
    assert "its last heartbeat came 1m ago" in checked
    assert "No job that it had begun waits. Start it again." in checked


def test_a_dead_worker_is_forgotten_after_an_hour_unless_a_job_waits_for_it(
    shell: Shell, shop: HeldShop
) -> None:
    for name in ("idle@dead", "busy@dead"):
        shop.member(name, silent_s=FORGOTTEN_S + 1, started_s=2 * FORGOTTEN_S)
    jobs = [shop.begin("busy@dead"), shop.begin("forgotten@dead")]
    checked = shell.run("check").out
    assert "idle@dead" not in checked
    assert "worker busy@dead is dead: its last heartbeat came 1h ago" in checked
    assert "worker forgotten@dead is dead: no heartbeat of it came for 1 h" in checked
    for job in jobs:
        assert_agree(shell, job, checked)


def test_a_message_that_no_worker_had_begun_is_named_by_all_three(
    shell: Shell, shop: HeldShop
) -> None:
    job = shop.admit()
    shop.hold(job)
    shop.owner()
    checked = shell.run("check").out
    assert "! workers    dead workers hold 1 message, e.g. of job " in checked
    assert_agree(shell, job, checked)


def test_a_message_that_came_back_is_found_where_it_waits(shell: Shell, shop: HeldShop) -> None:
    job, other = shop.begin("shop@dead"), shop.begin("shop@dead")
    shop.queued(other)
    shop.queued(job)
    shown = shell.run("jobs", "show", job)
    hands = shell.run("jobs", "show", job, "--json").document["hands"]

    said = f"waits in queue '{shop.queue}'; the worker that takes it runs the job"
    assert f"message   {said}\n" in shown.out
    assert (hands["message_place"], hands["message"]) == ("queue", said)
    assert_agree(shell, job)
    reconciled = shell.run("reconcile")
    assert "nothing disagrees" in reconciled.out
    assert "continues without a repair" in reconciled.out
    assert reconciled.code == 0
    named = shell.run("reconcile", "--json").document["continuing"]
    assert {one["job_id"] for one in named["jobs"]} == {job, other}
    assert named["count"] == 2
    assert said in named["jobs"][0]["detail"]


def test_a_message_that_waits_for_its_time_is_found_in_the_delay_store(
    shell: Shell, shop: HeldShop
) -> None:
    job = shop.begin("shop@dead")
    shop.delayed(job)
    shown = shell.run("jobs", "show", job)
    hands = shell.run("jobs", "show", job, "--json").document["hands"]

    assert "message   waits in the delay store, from where a worker puts it" in shown.out
    assert hands["message_place"] == "delay store"
    assert_agree(shell, job)


@pytest.mark.parametrize("tag", [f"{OWNER}:0", "of-kombu"])
def test_before_the_lease_expires_the_death_and_the_message_are_shown(
    tag: str, shell: Shell, shop: HeldShop
) -> None:
    job = shop.begin("shop@dead", expired_s=-600)
    shop.hold(job, tag=tag)
    shop.owner()
    shop.owner("host.2.def", silent_s=-600)
    shop.member("shop@dead", silent_s=GONE_S + 60, own=True, queues=(shop.queue,))
    shown = shell.run("jobs", "show", job)
    hands = shell.run("jobs", "show", job, "--json").document["hands"]

    assert ", and not renewed: worker shop@dead is dead\n" in shown.out
    assert "which is dead; it comes back at about 20" in shown.out
    assert (hands["lease_expired"], hands["worker_lives"]) == (False, False)
    assert hands["held_by_dead"] is not None
    assert_agree(shell, job)


def test_a_message_that_is_nowhere_is_for_the_reconciler(shell: Shell, shop: HeldShop) -> None:
    job = shop.begin("shop@dead", expired_s=600)
    shown = shell.run("jobs", "show", job)
    hands = shell.run("jobs", "show", job, "--json").document["hands"]

    assert (
        "message   not found: in no queue, in no delay store, held by no worker. See:" in shown.out
    )
    assert (hands["message_place"], hands["back_at"]) == ("not found", None)
    found = shell.run("reconcile", "--json").document["findings"]
    assert {"kind": "stranded_running", "job_id": job, "detail": ""} in found
    assert_agree(shell, job)


def test_a_message_that_is_nowhere_for_less_than_the_grace_time_says_until_when(
    shell: Shell, shop: HeldShop
) -> None:
    job = shop.begin("shop@dead", expired_s=-600)
    shown = shell.run("jobs", "show", job)
    assert "if that is so after 20" in shown.out
    assert "and --repair publishes the message again if there is a copy\n" in shown.out
    assert_agree(shell, job)


def test_what_a_living_worker_took_from_the_queue_waits_there_for_the_lease(
    shell: Shell, shop: HeldShop
) -> None:
    job = shop.begin("shop@dead", expired_s=-600)
    shop.hold(job)
    shop.owner(silent_s=-600)
    shown = shell.run("jobs", "show", job)
    assert "message   held by another worker, which runs the job after the lease\n" in shown.out
    assert_agree(shell, job)


def test_without_the_broker_it_is_unknown_where_the_message_is(
    shell: Shell, shop: HeldShop
) -> None:
    job = shop.begin("shop@dead", expired_s=-600)
    shell.variables["TASKYARD_BROKER_URL"] = "redis://127.0.0.1:1/0"
    shown = shell.run("jobs", "show", job)
    checked = shell.run("check")
    assert "message   unknown: " in shown.out
    assert "127.0.0.1:1" in shown.out
    assert f"1 job that it had begun must begin again: {job}" in checked.out


@pytest.mark.slow  # each command waits for answers of workers over RabbitMQ
def test_rabbitmq_returned_the_message_and_the_queue_says_what_is_next(
    shell: Shell, shop: HeldShop, servers: Servers
) -> None:
    shell.variables["TASKYARD_BROKER_URL"] = servers.rabbitmq_url()
    native = shop.begin("celery@dead", expired_s=-600, queue="exec")
    expired = shop.begin("celery@dead", queue="exec")
    shown = shell.run("jobs", "show", native)
    document = shell.run("jobs", "show", native, "--json").document
    assert "message   RabbitMQ returned it to queue 'exec', where 0 wait; the worker" in shown.out
    assert "next      taskyard worker --pool exec\n" in shown.out
    assert document["hands"]["message_place"] == "rabbitmq"
    assert document["next"] == "taskyard worker --pool exec"
    checked = shell.run("check").out
    for job in (native, expired):
        assert_agree(shell, job, checked)


def test_what_is_not_found_in_time_is_unknown_and_never_zero(
    shell: Shell, shop: HeldShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskyard.ops.cli.checks.dead_workers._SEARCH_S", 0)
    monkeypatch.setattr("taskyard.inspection.job_holder._SEARCH_S", 0)
    shop.hold(shop.admit())
    shop.member("idle@dead", silent_s=GONE_S + 60, queues=(shop.queue,))
    job = shop.begin("busy@dead")
    shop.queued(job)
    details = " ".join(finding.detail for finding in dead_workers.look_at(shop.settings))
    holder = find_holder(shop.settings, shop.records, shop.records.read(job))

    assert "It is unknown whether jobs wait for it: there is too much to search" in details
    assert f"1 job that it had begun must begin again: {job}" in details
    assert holder is not None
    assert str(holder.sentence).startswith("unknown: too many messages wait to find it within")


def assert_agree(shell: Shell, job: str, checked: str | None = None) -> None:
    """What `check` says of dead workers names the job, and `reconcile` says the same or why not."""
    assert job in (checked or shell.run("check").out)
    document = shell.run("reconcile", "--json").document
    continuing = {one["job_id"]: one["detail"] for one in document["continuing"]["jobs"]}
    found = {one["job_id"]: one["detail"] for one in document["findings"] if "job_id" in one}
    assert (job in continuing) != (job in found)
    sentence = shell.run("jobs", "show", job, "--json").document["hands"]["message"]
    if "comes back at about" not in sentence and job in continuing:
        assert sentence in continuing[job]
