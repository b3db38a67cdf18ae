"""A task is adopted whenever it is made, and warnings of Celery point at the app's own line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, Task
from celery.exceptions import DuplicateTaskNameWarning

from taskyard.install import Mode, install
from taskyard.install.attribute_names import MODE
from taskyard.settings import Settings

URL = "redis://127.0.0.1:1/0"  # nothing is connected


@pytest.fixture
def app() -> Iterator[Any]:
    made = Celery("late", broker=URL, set_as_current=False)
    install(made, settings=Settings(redis_url=URL, broker_url=URL))
    made.finalize()
    yield made
    made.close()


def test_a_task_made_after_the_start_is_adopted(app: Any) -> None:
    @app.task(name="late.fun", shared=False, autoretry_for=(OSError,))
    def fun() -> None:
        return None

    assert getattr(fun, MODE) is Mode.PROTECT
    assert fun() is None


def test_a_task_class_registered_after_the_start_is_adopted(app: Any) -> None:
    class Late(Task):  # type: ignore[misc]
        name = "late.class"

        def run(self) -> int:
            return 7

    task = app.register_task(Late())
    assert getattr(task, MODE) is Mode.PROTECT
    assert task() == 7
    assert "bind" not in vars(task)


def test_a_warning_about_a_task_points_at_the_apps_own_line(app: Any) -> None:
    def scaling(factor: int) -> Any:
        @app.task(name="late.scale", shared=False)
        def scale(number: int) -> int:
            return number * factor

        return scale

    scaling(2)
    with pytest.warns(DuplicateTaskNameWarning) as warned:
        scaling(3)
    assert warned[0].filename == __file__
