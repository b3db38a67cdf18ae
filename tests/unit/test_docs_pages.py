"""What README, changelog and docs/ name exists: pages, anchors, files, variables, commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard.ops.cli.commands import COMMANDS
from taskyard.ops.cli.lazy_commands import Noun
from taskyard.settings import Settings

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS]
FOLDERS = sorted(path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != ".")
# What runs write there is not in the repository.
WRITTEN = "build/"
# Read by the settings' own loader, which of them no object could hold.
NO_FIELD = {"TASKYARD_CONFIG"}

BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def code(page: Path) -> Iterator[str]:
    """The code spans of a page and the lines of its blocks."""
    text = page.read_text("utf-8")
    for block in BLOCK.findall(text):
        yield from block.splitlines()
    yield from re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}


@every_page
def test_every_link_leads_to_a_file_and_to_a_title_in_it(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [page.name for page in DOCS if f"](docs/{page.name})" not in readme] == []


@every_page
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    paths = {
        span.partition("::")[0]
        for span in code(page)
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?(::\w+)?", span) and span.partition("/")[1]
    }
    named = {path for path in paths if path.partition("/")[0] in FOLDERS}
    named = {path for path in named if not path.startswith(WRITTEN)}
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


@every_page
def test_every_variable_that_a_page_names_is_a_setting(page: Path) -> None:
    known = {f"TASKYARD_{name.upper()}" for name in Settings.model_fields} | NO_FIELD
    named = set(re.findall(r"TASKYARD_\w*[A-Z]\b", page.read_text("utf-8")))
    assert named - known == set()


@every_page
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    for line in code(page):
        for noun, verb in re.findall(r"(?:^|[(|] ?)taskyard ([a-z]+)(?: ([a-z]+)\b)?", line):
            assert noun in COMMANDS, line
            entry = COMMANDS[noun]
            if isinstance(entry, Noun) and verb:
                assert verb in entry.verbs, line
