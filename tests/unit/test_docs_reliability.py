"""docs/reliability.md names every kind of drift as the code does."""

from pathlib import Path

from chaos.storms import STORMS

from taskyard.reconcile import MEANINGS

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def test_the_page_lists_every_kind_of_drift_with_its_repair() -> None:
    lines = PAGE.read_text().splitlines()
    for kind, meaning in MEANINGS.items():
        repair = meaning.repair or "none: reported"
        assert f"| `{kind.value}` | {meaning.text} | {repair} |" in lines


def test_the_page_has_a_result_of_each_storm_over_each_setup() -> None:
    rows = [line.split(" | ")[:2] for line in PAGE.read_text().splitlines()]
    for name, storm in STORMS.items():
        for setup in storm.setups:
            assert [f"| {name}", setup] in rows
