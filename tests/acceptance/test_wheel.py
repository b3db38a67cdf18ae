"""The wheel as a user installs it: complete, and typed for the user's own checker."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

# Builds the wheel and installs it.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SERVICE = """
from pydantic import BaseModel

from taskyard.client import JobHandle, Taskyard
from taskyard.errors import TaskyardError
from taskyard.jobs import JobContext, job
from taskyard.testing import Yard


class Invoice(BaseModel):
    cents: int


@job("send_invoice", queue="exec")
def send_invoice(invoice: Invoice, context: JobContext) -> int:
    return invoice.cents * context.attempt


def enqueue(yard: Taskyard) -> JobHandle:
    try:
        return yard.enqueue("send_invoice", {"cents": 5})
    except TaskyardError:
        raise


reveal_type(enqueue)
reveal_type(Yard().run())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*argv, str(ROOT)], check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_everything_of_the_four_roots_is_in_it(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    for root in ("platform", "workers", "tasks", "ops"):
        for file in (ROOT / root / "taskyard").rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert str(file.relative_to(ROOT / root)) in inside


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel, and this one's libraries."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    zipfile.ZipFile(wheel).extractall(packages)
    # Libraries alone: this environment's own taskyard is a path file, which is not followed there.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def test_a_users_type_checker_sees_its_types(python: Path, tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    argv = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python)]
    argv += ["--config-file", "", "--cache-dir", str(tmp_path / "cache"), "service.py"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        '"def (yard: taskyard.client.taskyard.Taskyard) -> taskyard.client.job_handle.'
        in done.stdout
    )
    assert 'Revealed type is "int"' in done.stdout
