"""Denials without an identity are counted, and cannot fill the database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from servers import Servers
from support.shell import connected_shell
from taskyard.audit import count_unverified, list_unverified
from taskyard.audit.unverified_denials import MOST_A_MINUTE


@pytest.fixture
def counts(database: Engine) -> Engine:
    with database.begin() as connection:
        connection.execute(text("TRUNCATE unverified_denials"))
    return database


def now() -> datetime:
    return datetime.now(UTC)


def rows(counts: Engine) -> list[tuple[str, str, int]]:
    found = list_unverified(counts, None, 1000)
    return sorted((row["source"], row["why"], row["count"]) for row in found)


def test_denials_are_counted_by_source_and_cause(counts: Engine) -> None:
    count_unverified(counts, "broadcast", "bad_signature")
    count_unverified(counts, "broadcast", "bad_signature", now())
    count_unverified(counts, "ops", "malformed", count=5)
    with counts.begin() as connection:
        count_unverified(connection, "ops", "malformed")

    assert rows(counts) == [("broadcast", "bad_signature", 2), ("ops", "malformed", 6)]


def test_a_denial_of_a_transaction_that_is_rolled_back_does_not_count(counts: Engine) -> None:
    with counts.connect() as connection:
        count_unverified(connection, "ops", "malformed")
        connection.rollback()

    assert rows(counts) == []


def test_many_sources_share_one_row_and_none_is_uncounted(counts: Engine) -> None:
    at = now()
    for number in range(MOST_A_MINUTE + 50):
        count_unverified(counts, f"source-{number}", "unknown_key", at)
    count_unverified(counts, "source-0", "unknown_key", at)

    found = rows(counts)
    assert len(found) == MOST_A_MINUTE + 1
    assert ("other", "other", 50) in found
    assert ("source-0", "unknown_key", 2) in found
    assert sum(count for _, _, count in found) == MOST_A_MINUTE + 51


def test_counts_of_many_sessions_at_once_are_all_there(counts: Engine) -> None:
    at = now()

    def deny(number: int) -> None:
        count_unverified(counts, f"source-{number % 3}", "malformed", at)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(deny, range(120)))

    assert [count for _, _, count in rows(counts)] == [40, 40, 40]


@pytest.mark.parametrize("at", [datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)])
def test_a_time_that_is_not_ours_opens_no_minute_of_its_own(counts: Engine, at: datetime) -> None:
    count_unverified(counts, "stream", "expired", at)

    (row,) = list_unverified(counts, None, 10)
    assert abs(row["last"] - now()) < timedelta(minutes=62)


@pytest.mark.parametrize(
    ("source", "why", "expected"),
    [
        ("a\x00b\x1b[2J", "expired", ("a\\x00b\\x1b[2J", "expired")),
        ("s" * 5000, "expired", ("s" * 200, "expired")),
        ("", "DROP TABLE", ("other", "other")),
        ("token=abcdef0123", "x" * 64, ("token=[redacted]", "other")),
    ],
)
def test_what_a_caller_wrote_is_cut_and_shown_plainly(
    counts: Engine, source: str, why: str, expected: tuple[str, str]
) -> None:
    count_unverified(counts, source, why)

    assert rows(counts) == [(*expected, 1)]


def test_a_count_below_one_is_refused(counts: Engine) -> None:
    with pytest.raises(ValueError, match="expected a count of at least 1, got 0"):
        count_unverified(counts, "ops", "malformed", count=0)


def test_the_list_has_the_sums(
    counts: Engine, servers: Servers, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    count_unverified(counts, "broadcast", "bad_signature", count=7)
    shell = connected_shell(tmp_path_factory.mktemp("shell"), servers, database_url)

    text_out = shell.run("audit", "list", "--unverified", "--since", "1h").out
    (row,) = shell.run("audit", "list", "--unverified", "--json").document

    assert "broadcast  bad_signature  7" in text_out
    assert (row["source"], row["why"], row["count"]) == ("broadcast", "bad_signature", 7)
