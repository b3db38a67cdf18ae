"""After a kill: what `jobs show`, `check` and `reconcile` say, and that they say nothing before."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from support.held_shop import OWNER, HeldShop
from support.shell import Shell
from taskyard.records import GONE_S
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

    assert "lease     expired 3m ago, 20" in shown.out
    assert "; worker shop@dead is dead\n" in shown.out
    assert "message   held by process host.1, which is dead; it comes back at about 20" in shown.out
    assert (hands["lease_expired"], hands["worker_lives"]) == (True, False)
    assert (hands["message_held"], hands["held_by_dead"]) == (True, "process host.1")
    assert hands["back_at"] > hands["lease_until"]
    assert "! workers    worker shop@dead is dead: its last heartbeat came 1m ago" in checked.out
    assert f"did not sign off, and it consumed {shop.queue}. Its messages come back" in checked.out
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


def test_a_message_that_came_back_is_found_where_it_waits(shell: Shell, shop: HeldShop) -> None:
    job, other = shop.begin("shop@dead"), shop.begin("shop@dead")
    shop.queued(other)
    shop.queued(job)
    shown = shell.run("jobs", "show", job)
    hands = shell.run("jobs", "show", job, "--json").document["hands"]

    assert "message   waits in its queue; the worker that takes it runs the job" in shown.out
    assert (hands["message_held"], hands["message_waits_in"]) == (False, "queue")
    assert "nothing disagrees" in shell.run("reconcile").out


def test_a_message_that_waits_for_its_time_is_found_in_the_delay_store(
    shell: Shell, shop: HeldShop
) -> None:
    job = shop.begin("shop@dead")
    shop.delayed(job)
    shown = shell.run("jobs", "show", job)
    hands = shell.run("jobs", "show", job, "--json").document["hands"]

    assert "message   waits in the delay store, from where a worker puts it" in shown.out
    assert (hands["message_held"], hands["message_waits_in"]) == (False, "delay store")


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


def test_a_message_that_is_nowhere_is_for_the_reconciler(shell: Shell, shop: HeldShop) -> None:
    job = shop.begin("shop@dead", expired_s=600)
    shown = shell.run("jobs", "show", job)
    hands = shell.run("jobs", "show", job, "--json").document["hands"]

    assert "message   in no queue, in no delay store, held by no worker. See: taskyard" in shown.out
    assert (hands["message_held"], hands["back_at"], hands["message_waits_in"]) == (False, None, "")
    assert job in shell.run("reconcile", "--json").out
