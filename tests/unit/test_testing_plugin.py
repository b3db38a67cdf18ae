"""The pytest plugin: there for those who use it, and invisible to all others."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import taskyard.testing

pytest_plugins = "pytester"

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


def test_the_pages_example_for_pytest_passes(pytester: pytest.Pytester) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    [example] = [block for block in blocks if "taskyard_yard" in block]
    pytester.makepyfile(example)
    done = pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider")
    done.assert_outcomes(passed=1)


def test_each_test_has_a_yard_of_its_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest
        from taskyard.jobs import job
        from taskyard.testing import assert_enqueued

        @job("a_job", queue="exec")
        def a_job(payload):
            return payload

        @pytest.mark.parametrize("number", [1, 2])
        def test_it(taskyard_yard, number):
            taskyard_yard.enqueue("a_job", number)
            assert_enqueued(taskyard_yard, "a_job", count=1)
        """
    )
    done = pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider")
    done.assert_outcomes(passed=2)


def test_a_failed_assertion_points_at_the_users_line(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from taskyard.testing import assert_enqueued

        def test_it(taskyard_yard):
            assert_enqueued(taskyard_yard, "plan_generation")
        """
    )
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*The yard has no jobs.", "*test_a_failed*.py:4: AssertionError"])
    done.stdout.no_fnmatch_line("*asserts.py:*")


def test_a_project_that_does_not_use_it_pays_nothing() -> None:
    script = (
        "import sys, taskyard.testing.plugin\n"
        "print([name for name in ('celery', 'kombu', 'pydantic', 'redis', 'sqlalchemy')"
        " if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_yard_needs_neither_sqlalchemy_nor_alembic() -> None:
    script = (
        "import sys\n"
        "for name in ('sqlalchemy', 'alembic', 'psycopg2'): sys.modules[name] = None\n"
        "from taskyard.jobs import job\n"
        "from taskyard.testing import Yard, assert_dead_lettered\n"
        "@job('a_job', queue='exec', policy={'max_retries': 0})\n"
        "def a_job(payload): raise ValueError\n"
        "with Yard() as yard:\n"
        "    job = yard.enqueue('a_job', 1)\n"
        "    yard.settle()\n"
        "    assert_dead_lettered(yard, 'a_job')\n"
        "    try: yard.replay(job)\n"
        "    except Exception as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    assert "install 'taskyard[testing]'" in done.stdout


@pytest.mark.parametrize("missing", ["fakeredis", "lupa"])
def test_a_yard_without_its_extra_says_what_to_install(missing: str) -> None:
    script = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from taskyard.testing import YardClock\n"
        "from taskyard.testing import Yard\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: a yard needs fakeredis to run the record scripts"), last
    assert last.endswith("install 'taskyard[testing]'")


def test_every_public_name_is_there_and_no_other() -> None:
    for name in taskyard.testing.__all__:
        assert getattr(taskyard.testing, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Shipyard'"):
        taskyard.testing.Shipyard  # noqa: B018 - asking is the act
