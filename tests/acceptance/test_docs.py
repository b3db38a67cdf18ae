"""Every command and every Python block in the README and in docs/ runs as it stands there."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from servers import free_port
from support.waiting import eventually

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Started in the background by the fixture, as the reader's first shell does; and the tests'
# own environment is active already.
NOT_AGAIN = {"taskyard up --builtin", ". .venv/bin/activate"}
FLOWER = re.search(r"^celery .* flower .*$", (ROOT / "README.md").read_text(), re.MULTILINE)


def _blocks(page: Path) -> list[tuple[str, str]]:
    return [(kind, text) for kind, text in FENCE.findall(page.read_text())]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a running `taskyard up`, as in the README's first shell."""
    where = tmp_path_factory.mktemp("docs")
    (where.parent / "taskyard").symlink_to(ROOT)  # beside it lies the checkout
    log = (where / "up.log").open("w")
    stack = subprocess.Popen(
        [_tool("taskyard"), "up", "--builtin", "--concurrency", "1"],
        cwd=where, stdout=log, stderr=log, env=_environment(),
    )  # fmt: skip
    try:
        yield where
    finally:
        stack.send_signal(signal.SIGINT)
        stack.wait(timeout=60)
        log.close()


def _tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TASKYARD_")}
    return {**kept, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_the_page_runs(page: Path, folder: Path) -> None:
    script = ["set -eu", _wait_until_ready()]
    for number, (kind, text) in enumerate(_blocks(page)):
        script.append(_shell(text) if kind == "sh" else _python(folder, page, number, text))
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=folder, env=_environment(), capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Traceback (most recent call last)" not in done.stderr


def test_flower_as_the_readme_starts_it_shows_every_worker(folder: Path) -> None:
    assert FLOWER is not None
    port = free_port()
    command = FLOWER[0].replace("5555", str(port)).replace("celery", _tool("celery"), 1)
    up = f'{_wait_until_ready()}\neval "$(taskyard env --export)"\nexec {command}'
    with (folder / "flower.log").open("w") as log:
        flower = subprocess.Popen(
            ["bash", "-c", up], cwd=folder, env=_environment(), stdout=log, stderr=log
        )
    try:
        eventually(lambda: _pools(port) == {"plan", "exec", "locator", "ops"}, "Flower's workers",
                   why=(folder / "flower.log").read_text)  # fmt: skip
    finally:
        flower.terminate()
        flower.wait(timeout=30)


def _pools(port: int) -> set[str]:
    try:
        with urlopen(f"http://127.0.0.1:{port}/workers?json=1", timeout=5) as answer:
            return {row["hostname"].split(".")[0] for row in json.load(answer)["data"]}
    except OSError:
        return set()


def _wait_until_ready() -> str:
    ready = (
        'eval "$(taskyard env --export)" 2>/dev/null && celery -A taskyard.workers.app inspect ping'
    )
    return f"for _ in $(seq 60); do ({ready}) >/dev/null 2>&1 && break; sleep 0.5; done"


def _shell(text: str) -> str:
    """The block itself; a make target is only resolved, for this very test runs under one.

    What would be installed is built and read, its extras too, and left out of this environment.
    """
    lines = []
    for line in text.splitlines():
        if line.strip() in NOT_AGAIN or (FLOWER and line == FLOWER[0]):  # it runs on
            continue
        made = re.match(r"make ([a-z-]+)", line)
        if made:
            lines.append(f"make -C {ROOT} -n {made[1]} > /dev/null")
        elif line.startswith("pip "):
            lines.append(_offline(line))
        else:
            lines.append(line)
    return "\n".join(lines)


def _offline(line: str) -> str:
    offline = "--no-index --no-build-isolation"
    if line.startswith("pip wheel "):
        return line.replace("wheel", f"wheel {offline}", 1)
    tried = line.replace("install", f"install --dry-run --no-deps {offline}", 1)
    return (
        f"{tried} > pip.log 2>&1 || {{ cat pip.log; exit 1; }}\n"
        "if grep 'does not provide the extra' pip.log; then exit 1; fi"
    )


def _python(folder: Path, page: Path, number: int, text: str) -> str:
    file = folder / f"{page.stem}_{number}.py"
    file.write_text(text)
    return f"python {file.name}"
