"""The page that leads through a job names files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
SECTION = PAGE.partition("## One job, file by file")[2].partition("\n## ")[0]
FILES = sorted(set(re.findall(r"`([a-z_/]+\.(?:py|lua))`", SECTION)))


def test_the_page_leads_from_the_enqueue_to_the_row() -> None:
    assert FILES[0] == "backend/record_backend.py"
    assert {"client/taskyard.py", "mirror/mirror.py"} <= set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_the_page_names_exists(file: str) -> None:
    assert (ROOT / "platform" / "taskyard" / file).is_file()
