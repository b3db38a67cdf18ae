"""The oldest Celery is the same everywhere, and an older one is refused with one sentence."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from taskyard.engine.require_celery_version import OLDEST, check_celery
from taskyard.errors import UnsupportedCelery

ROOT = Path(__file__).parents[2]
SAID = ".".join(str(part) for part in OLDEST)


@pytest.mark.parametrize("found", ["5.6.3", "5.5.3", "4.4.7", "5.6.0rc1"])
def test_an_older_celery_is_refused_with_what_to_run(found: str) -> None:
    with pytest.raises(UnsupportedCelery) as caught:
        check_celery(found)

    assert str(caught.value) == (
        f"Taskyard needs Celery {SAID}, and {found} is installed. "
        f"Run: pip install 'celery~={SAID}.0'"
    )


@pytest.mark.parametrize("found", [f"{SAID}.0", f"{SAID}.9", "6.0.0"])
def test_this_celery_and_a_newer_one_pass(found: str) -> None:
    check_celery(found)


def test_the_installed_one_passes() -> None:
    check_celery()


@pytest.mark.parametrize("module", ["taskyard.install", "taskyard.engine.task"])
def test_an_import_of_what_needs_it_is_refused(module: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.metadata as m\nreal = m.version\n"
        "m.version = lambda name: '5.6.3' if name == 'celery' else real(name)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", f"import {module}"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert ran.returncode == 1
    assert f"UnsupportedCelery: Taskyard needs Celery {SAID}, and 5.6.3 is" in ran.stderr


def test_the_package_asks_for_it_and_the_pages_say_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (asked,) = [name for name in project["dependencies"] if name.startswith("celery")]
    assert asked.startswith(f"celery>={SAID},")
    for page in ("README.md", "docs/installing.md", "docs/migrating.md"):
        text = (ROOT / page).read_text("utf-8")
        assert f"Celery {SAID}" in text, page
    assert importlib.metadata.version("celery").startswith(SAID)


def test_the_page_of_installing_has_every_extra_and_no_other() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    page = (ROOT / "docs" / "installing.md").read_text("utf-8")
    rows = set(re.findall(r"^\| `taskyard\[(\w+)\]` \|", page, re.MULTILINE))
    assert rows == set(project["optional-dependencies"])
