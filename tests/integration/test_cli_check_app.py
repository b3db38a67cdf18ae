"""`taskyard check module:app`: what install changes for each task of an existing app."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.shell import Shell

APP = """
from celery import Celery

app = Celery("shop", broker="redis://nowhere:1/0")
{install}

@app.task(name="shop.pay")
def pay(): ...

@app.task(name="shop.mail", acks_late=False)
def mail(): ...

@app.task(name="shop.export", serializer="pickle", ignore_result=True)
def export(): ...

@app.task(name="shop.odd", taskyard="off")
def odd(): ...
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "shop.py").write_text(APP.format(install=""))
    (tmp_path / "there.py").write_text(
        APP.format(
            install="from taskyard.install import install\n"
            "install(app, mode='observe', tasks={'shop.p*': 'protect'})"
        )
    )
    return Shell(tmp_path, {"TASKYARD_REDIS_URL": "redis://nowhere:1/0"})


def test_each_task_is_told_with_what_speaks_against_it(shell: Shell) -> None:
    ran = shell.run("check", "shop:app", "--json")
    assert ran.code == 0
    told = {task["name"]: task for task in ran.document}
    assert {name: task["mode"] for name, task in told.items()} == {
        "shop.pay": "protect",
        "shop.mail": "observe",
        "shop.export": "observe",
        "shop.odd": "off",
    }
    assert (told["shop.pay"]["acks_before"], told["shop.pay"]["acks_with"]) == (
        "before it runs",
        "after it ran",
    )
    assert told["shop.export"]["backend"] == "none (ignore_result)"
    assert "acks_late=False is its own wish" in told["shop.mail"]["warnings"][0]
    assert "serializer 'pickle'" in told["shop.export"]["warnings"][0]


def test_the_modes_of_an_installed_app_are_its_own(shell: Shell) -> None:
    told = {
        task["name"]: task["mode"] for task in shell.run("check", "there:app", "--json").document
    }
    assert told == {
        "shop.pay": "protect",
        "shop.mail": "observe",
        "shop.export": "observe",
        "shop.odd": "off",
    }


def test_the_table_shows_the_change(shell: Shell) -> None:
    ran = shell.run("check", "shop:app")
    assert "shop.pay" in ran.out
    assert "before it runs → after it ran" in ran.out
    assert "shop.mail: observe, not more: acks_late=False" in ran.err


def test_an_app_that_is_not_there_is_refused_with_a_remedy(shell: Shell) -> None:
    ran = shell.run("check", "nothing:app")
    assert ran.code == 2
    assert "no Celery app 'nothing:app'" in ran.err
