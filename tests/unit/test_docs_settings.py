"""The settings page and the settings object say the same."""

import re
from pathlib import Path

import yaml

from taskyard.jobs.catalogue import Catalogue
from taskyard.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def _rows() -> dict[str, list[str]]:
    lines = [line.strip("|").split("|") for line in PAGE.read_text().splitlines()]
    cells = [[cell.strip() for cell in line] for line in lines if len(line) == 5]
    return {row[0].strip("`"): row for row in cells if row[0].startswith("`")}


def test_the_page_lists_every_setting_and_no_other():
    assert set(_rows()) == set(Settings.model_fields)


def test_the_page_names_each_variable_and_default():
    defaults = Settings()
    for name, row in _rows().items():
        assert row[1] == f"`TASKYARD_{name.upper()}`"
        value = getattr(defaults, name)
        if isinstance(value, bool | int | float | str):
            assert row[3] == f"`{str(value).lower() if isinstance(value, bool) else value}`", name


def test_the_example_of_a_job_type_file_is_one(tmp_path):
    block = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    file = tmp_path / "types.yaml"
    file.write_text(block[1])
    catalogue = Catalogue.load(file)
    assert catalogue["send_invoice"].policy.max_retries == 5
    assert yaml.safe_load(block[1])["job_types"]["send_invoice"]["queue"] == "exec"
