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
    shown = {task["name"]: task for task in ran.document["tasks"]}
    assert {name: task["mode"] for name, task in shown.items()} == {
        "shop.pay": "protect",
        "shop.mail": "observe",
        "shop.export": "observe",
        "shop.odd": "off",
    }
    assert (shown["shop.pay"]["acks_before"], shown["shop.pay"]["acks_with"]) == (
        "before it runs",
        "after it ran",
    )
    assert shown["shop.export"]["backend"] == "none (ignore_result)"
    assert "the task sets acks_late=False itself" in shown["shop.mail"]["warnings"][0]
    assert "serializer 'pickle'" in shown["shop.export"]["warnings"][0]


@pytest.mark.parametrize(
    "how",
    [
        "app = Celery('parts', include=['parts_jobs.tasks'])",
        "app = Celery('parts')\napp.conf.imports = ['parts_jobs.tasks']",
        "app = Celery('parts')\napp.autodiscover_tasks(['parts_jobs'])",
    ],
    ids=["include", "imports", "autodiscover_tasks"],
)
def test_tasks_that_only_a_worker_imports_are_listed(shell: Shell, how: str) -> None:
    (shell.folder / "parts.py").write_text(f"from celery import Celery\n{how}\n")
    (shell.folder / "parts_jobs").mkdir()
    (shell.folder / "parts_jobs" / "__init__.py").touch()
    (shell.folder / "parts_jobs" / "tasks.py").write_text(
        "from celery import shared_task\n@shared_task(name='parts.pay')\ndef pay(): ...\n"
    )
    ran = shell.run("check", "parts:app", "--json")
    assert [task["name"] for task in ran.document["tasks"]] == ["parts.pay"]


def test_a_module_of_tasks_that_cannot_be_imported_is_named(shell: Shell) -> None:
    (shell.folder / "parts.py").write_text(
        "from celery import Celery\napp = Celery('parts', include=['absent_tasks'])\n"
    )
    ran = shell.run("check", "parts:app")
    assert ran.code == 2
    assert "No module named 'absent_tasks'" in ran.err


def test_an_app_without_tasks_is_said_to_have_none(shell: Shell) -> None:
    (shell.folder / "bare.py").write_text("from celery import Celery\napp = Celery('bare')\n")
    ran = shell.run("check", "bare:app")
    assert ran.code == 0
    assert "bare:app has no task but Celery's own" in ran.err
    assert "task" not in ran.out


def test_the_modes_of_an_installed_app_are_its_own(shell: Shell) -> None:
    tasks = shell.run("check", "there:app", "--json").document["tasks"]
    shown = {task["name"]: task["mode"] for task in tasks}
    assert shown == {
        "shop.pay": "protect",
        "shop.mail": "observe",
        "shop.export": "observe",
        "shop.odd": "off",
    }


def test_what_kombus_transport_leaves_unprotected_is_listed(shell: Shell) -> None:
    by_kombu = "from taskyard.install import install\ninstall(app, transport=False)"
    (shell.folder / "kombus.py").write_text(APP.format(install=by_kombu))
    ran = shell.run("check", "kombus:app")
    document = shell.run("check", "kombus:app", "--json").document
    assert (
        "kombu's own transport reads its queues (install was called with transport=False)"
        in ran.err
    )
    assert "visibility_timeout, 3600 s here" in ran.err
    assert document["transport"] == {"own": False, "why": "install was called with transport=False"}
    assert len(document["unprotected"]) == 3
    for name in ("shop:app", "there:app"):
        assert "kombu's own transport" not in shell.run("check", name).err
        assert shell.run("check", name, "--json").document["unprotected"] == []


def test_the_table_shows_the_change(shell: Shell) -> None:
    ran = shell.run("check", "shop:app")
    assert "shop.pay" in ran.out
    assert "before it runs → after it ran" in ran.out
    assert "shop.mail: only observe: the task sets acks_late=False" in ran.err


BROKEN = """
from settings_of_ours import BROKER


def connect():
    return BROKER["url"]
"""


def test_a_module_that_is_not_there_is_told_with_where_it_was_looked_for(shell: Shell) -> None:
    for name in ("nothing:app", "nothing", "nothing.at.all:app"):
        ran = shell.run("check", name)
        assert ran.code == 2
        assert ran.err == (
            f"error: there is no module 'nothing' in {shell.folder} or on Python's path. "
            "Expected a module and the app in it, as for `celery -A`, such as myapp:celery. "
            "Run it in the folder that holds the module, or set PYTHONPATH: "
            f"taskyard check {name}\n"
        )


@pytest.mark.parametrize("name", ["shop:celery", "shop.celery"])
def test_a_wrong_attribute_is_told_with_the_app_that_is_there(shell: Shell, name: str) -> None:
    ran = shell.run("check", name)
    assert ran.code == 2
    assert ran.err.startswith("error: the module 'shop' exists, but has no 'celery'. Expected ")
    assert ran.err.endswith(" Run: taskyard check shop:app\n")


def test_what_is_no_app_is_told_with_what_came(shell: Shell) -> None:
    ran = shell.run("check", "shop:pay")
    assert ran.code == 2
    assert ran.err.startswith("error: 'shop:pay' is not a Celery app, got: ")
    (shell.folder / "bare.py").write_text("")
    ran = shell.run("check", "bare")
    assert "the module 'bare' exists, but has neither an `app` nor a `celery`." in ran.err
    assert ran.err.endswith(
        "The module has no app; name the module that has one: taskyard check MODULE:APP\n"
    )


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero (broken.py, line 2)"),
        ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing' (broken.py"),
        ("def app(:", "SyntaxError: invalid syntax (broken.py, line 2)"),
        ("import sys; sys.exit('no config')", "SystemExit: no config (broken.py, line 2)"),
        ("import os; os.none", "AttributeError: module 'os' has no attribute 'none' (broken.py"),
        ("import json; json.loads('{')", "failed: JSONDecodeError: Expecting property name"),
        ("import deep; deep.connect()", "KeyError: 'url' (deep.py, line 6)"),
        ("raise ValueError('one\\ntwo, password=hunter2')", "ValueError: one two, password=[redac"),
    ],
)
def test_an_exception_in_the_module_is_told_with_its_line(
    shell: Shell, lines: str, said: str
) -> None:
    (shell.folder / "settings_of_ours.py").write_text("BROKER = {}\n")
    (shell.folder / "deep.py").write_text(BROKEN)
    (shell.folder / "broken.py").write_text(f"# the app\n{lines}\n")
    ran = shell.run("check", "broken:app")
    assert ran.code == 2
    assert ran.err.startswith(
        "error: the module 'broken' exists, but importing it failed: "
    ), ran.err  # fmt: skip
    assert said in ran.err
    assert ran.err.endswith(" Correct it, then run again: taskyard check broken:app\n")
    assert "not a Celery app" not in ran.err


def test_a_package_whose_celery_module_fails_is_not_told_to_be_without_an_app(
    shell: Shell,
) -> None:
    (shell.folder / "proj").mkdir()
    (shell.folder / "proj" / "__init__.py").write_text("")
    (shell.folder / "proj" / "celery.py").write_text("import no_such_thing\n")
    ran = shell.run("check", "proj")
    assert "importing it failed: ModuleNotFoundError: No module named 'no_such_thing'" in ran.err
    assert str(Path("proj", "celery.py")) + ", line 1" in ran.err


def test_settings_that_only_the_first_look_loads_are_the_app_s_own_fault(shell: Shell) -> None:
    (shell.folder / "late.py").write_text(
        "from celery import Celery\napp = Celery('late')\napp.config_from_object('no_settings')\n"
    )
    ran = shell.run("check", "late:app")
    assert ran.code == 2
    assert "the app of 'late:app' exists, but its settings or tasks cannot be loaded: " in ran.err
    assert "ModuleNotFoundError: No module named 'no_settings'" in ran.err


@pytest.mark.parametrize(
    ("broker", "strays"),
    [
        ("redis://other:1/0", True),
        ("redis://nowhere:1/5", True),
        ("amqp://nowhere:1//", True),
        ("redis://:secret@nowhere:1", False),
        ("rediss://nowhere:1/0", False),
        ("", False),
    ],
)
def test_an_app_whose_letters_nobody_would_see_is_told(
    shell: Shell, broker: str, strays: bool
) -> None:
    ran = shell.run("check", "shop:app", TASKYARD_BROKER_URL=broker)
    assert ran.code == 0
    shown = "publishes to redis://nowhere:1/0, and TASKYARD_BROKER_URL names another broker"
    assert (shown in ran.err) is strays, ran.err


@pytest.mark.parametrize(
    ("read", "elsewhere"), [("redis://:secret@NOWHERE:1", False), ("redis://other:1/0", True)]
)
def test_an_app_that_reads_from_another_broker_than_it_publishes_to_is_told(
    shell: Shell, read: str, elsewhere: bool
) -> None:
    source = APP.format(install=f"app.conf.broker_read_url = {read!r}")
    (shell.folder / "split.py").write_text(source)
    ran = shell.run("check", "split:app")
    assert ran.code == 0
    assert ("name different brokers" in ran.err) is elsewhere, ran.err
    assert "secret" not in ran.err


def test_a_task_whose_route_is_a_fanout_exchange_is_observed_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "cast.py").write_text(
        APP.format(
            install="from kombu import Queue\n"
            "from kombu.common import Broadcast\n"
            "app.conf.task_queues = [Queue('celery'), Broadcast('everywhere')]\n"
            "app.conf.task_routes = {'shop.pay': {'queue': 'everywhere'}}"
        )
    )
    shell = Shell(tmp_path, {"TASKYARD_REDIS_URL": "redis://nowhere:1/0"})
    ran = shell.run("check", "cast:app")
    assert ran.code == 0
    assert (
        "shop.pay: only observe: the task's route is the fanout exchange 'everywhere', so "
        "each worker runs a copy of its own"
    ) in " ".join(ran.err.split())


def test_a_router_that_fails_leaves_the_route_unknown(tmp_path: Path) -> None:
    (tmp_path / "lost.py").write_text(
        APP.format(
            install="def route(*args, **kwargs): raise KeyError('no table')\n"
            "app.conf.task_routes = [route]"
        )
    )
    shell = Shell(tmp_path, {"TASKYARD_REDIS_URL": "redis://nowhere:1/0"})
    ran = shell.run("check", "lost:app", "--json")
    [pay] = [task for task in ran.document["tasks"] if task["name"] == "shop.pay"]
    assert pay["mode"] == "protect"
    assert pay["warnings"] == [
        "it is unknown whether the task's route is a fanout exchange: KeyError: 'no table'"
    ]
