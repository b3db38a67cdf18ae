"""Old rows leave Postgres for archives that verify; no role can remove anything else."""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, insert, text, update
from sqlalchemy.exc import DBAPIError

from servers import Servers
from support.audit import (
    age_seals,
    count_of,
    sealed,
    sealer,
    with_triggers,
    without_triggers,
    write,
)
from support.databases import administrator_url, new_database
from support.letters import make_delivery, make_letter
from support.shell import connected_shell
from taskyard import audit
from taskyard.audit import Archiver, Head, HeadFile, Kind, archives_in, given_heads, verify
from taskyard.audit.archive import read_archive
from taskyard.audit.seal_chain import Seal, append, follow, last_seal
from taskyard.database import migrate, opened
from taskyard.database.tables import LETTERS, OUTBOX
from taskyard.errors import InvalidPayload, ServerUnreachable
from taskyard.mirror.store_letters import store_letters
from taskyard.relay import Retention
from taskyard.settings import Settings

ROWS = "SELECT count(*) FROM operator_audit_log"
SEALS = "SELECT count(*) FROM audit_seals"


@pytest.fixture
def log(servers: Servers) -> Iterator[Engine]:
    url = new_database(servers)
    migrate(url)
    with opened(url) as engine:
        yield engine


@pytest.fixture
def old(log: Engine) -> Head:
    """Two seals of five old rows, one of them the end of the chain; its head."""
    write(log, 3, age_days=40)
    sealed(log)
    write(log, 2, age_days=40)
    sealed(log)
    return age_seals(log, 40)


def check(log: Engine, folder: Path, *heads: Head) -> audit.Report:
    report = verify(log, heads, archives_in(folder))
    assert report.findings == []
    return report


def test_old_rows_go_with_their_seals_and_verify_over_the_archive(
    log: Engine, old: Head, tmp_path: Path
) -> None:
    write(log, 2)
    young = sealed(log)

    assert Archiver(log, tmp_path, 30).run_once() == 5
    assert Archiver(log, tmp_path, 30).run_once() == 0

    assert (count_of(log, ROWS), count_of(log, SEALS)) == (2, 2)
    (path,) = archives_in(tmp_path)
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    report = check(log, tmp_path, old, young)
    assert (report.rows, report.seals, report.archived, report.heads) == (7, 4, 5, 2)
    assert report.notes == []
    write(log)
    check(log, tmp_path, old, young, sealed(log))


def test_without_the_archive_the_report_says_what_was_not_compared(
    log: Engine, old: Head, tmp_path: Path
) -> None:
    write(log)
    young = sealed(log)
    Archiver(log, tmp_path, 30).run_once()

    report = verify(log, [old, young])

    assert report.findings == []
    assert report.heads == 1
    assert "1 exported head is not compared, because the seals were archived" in report.notes
    assert any(
        note.startswith("seals 1 to 2 are archived, says seal 4 of") for note in report.notes
    )


@pytest.mark.parametrize(("days", "counts"), [(31, {}), (29, {Kind.CHAIN_BROKEN: 1})])
def test_a_head_that_was_young_when_it_was_archived_is_a_finding(
    log: Engine, tmp_path: Path, days: int, counts: dict[Kind, int]
) -> None:
    """The owner of the tables writes that all was archived, and removes it."""
    write(log, 3)
    heads: list[Seal] = []
    sealer(log, heads).run_once()
    file = tmp_path / "heads.jsonl"
    day_us = 86_400_000_000
    HeadFile(file).append(heads[0])
    with log.begin() as owner:
        without_triggers(owner)
        for later in (days, 60):  # a second such seal makes the first no older
            last = last_seal(owner)
            assert last is not None
            marker = follow(
                last,
                cluster=last.cluster,
                sealed_us=heads[0].sealed_us + later * day_us,
                closed_below=None,
                next_transaction=last.next_transaction,
                row_ids=(),
                row_hashes=b"",
                archived_through=1,
            )
            append(owner, marker)
        owner.execute(text("DELETE FROM operator_audit_log"))
        owner.execute(text("DELETE FROM audit_seals WHERE seq = 1"))
        with_triggers(owner)

    assert verify(log, given_heads([str(file)])).counts == counts


def test_where_nothing_archives_a_seal_that_says_so_is_not_believed(
    log: Engine, old: Head, tmp_path: Path, servers: Servers
) -> None:
    write(log)
    sealed(log)
    folder = tmp_path / "archives"
    Archiver(log, folder, 30).run_once()
    url = log.url.render_as_string(hide_password=False)
    words = ("audit", "verify", "--head", str(old), "--json")

    ran = connected_shell(tmp_path, servers, url).run(*words)
    archiving = {"TASKYARD_AUDIT_RETENTION_DAYS": "30", "TASKYARD_AUDIT_ARCHIVE_FOLDER": "archives"}
    known = connected_shell(tmp_path, servers, url).run(*words, **archiving)

    assert (ran.code, ran.document["counts"]) == (1, {"chain_broken": 1, "head_missing": 1})
    assert "If relays archive, give the archives with --archive" in ran.out
    assert (known.code, known.document["counts"]) == (0, {})


def test_a_log_that_is_old_as_a_whole_goes_and_its_chain_goes_on(
    log: Engine, old: Head, tmp_path: Path
) -> None:
    assert Archiver(log, tmp_path, 30).run_once() == 5
    assert Archiver(log, tmp_path, 30).run_once() == 0

    assert (count_of(log, ROWS), count_of(log, "SELECT min(seq) FROM audit_seals")) == (0, 3)
    write(log)
    check(log, tmp_path, old, sealed(log))


def test_archives_follow_one_another(log: Engine, old: Head, tmp_path: Path) -> None:
    write(log, 2, age_days=35)
    sealed(log)
    assert Archiver(log, tmp_path, 30).run_once() == 5
    second = age_seals_keeping_links(log)
    write(log)
    last = sealed(log)
    assert Archiver(log, tmp_path, 30).run_once() == 2

    assert len(archives_in(tmp_path)) == 2
    report = check(log, tmp_path, old, second, last)
    assert (report.archived, report.heads) == (7, 3)
    first, later = archives_in(tmp_path)
    assert verify(log, [last], [later]).findings == []
    assert verify(log, [last], [first]).findings == []


def age_seals_keeping_links(log: Engine) -> Head:
    """As `age_seals`, for a chain whose beginning is archived."""
    first = "SELECT prev_hash FROM audit_seals ORDER BY seq LIMIT 1"
    with log.connect() as connection:
        before = bytes(connection.scalar(text(first)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("support.audit.GENESIS", before)
        return age_seals(log, 35)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("name", ["before_cursor_execute", "commit"])
def test_an_archiver_that_ends_between_any_two_steps_loses_no_row(
    log: Engine, old: Head, tmp_path: Path, name: str
) -> None:
    write(log)
    young = sealed(log)
    step, ended = 0, False
    while not ended:
        calls = 0

        def count(*_: Any) -> None:
            nonlocal calls
            calls += 1
            if calls > step:  # noqa: B023 - it is called in this round
                raise Killed

        event.listen(log, name, count)
        try:
            Archiver(log, tmp_path, 30).run_once()
            ended = True
        except (Killed, ServerUnreachable):
            step += 1
        finally:
            event.remove(log, name, count)
        assert check(log, tmp_path, old, young).rows >= 6
    assert step >= 1
    assert count_of(log, ROWS) == 1
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize(
    "tamper",
    [
        "UPDATE operator_audit_log SET reason = 'another' WHERE id = 2",
        "DELETE FROM operator_audit_log WHERE id = 2",
        "UPDATE audit_seals SET cluster = 'x' WHERE seq = 1",
        "DELETE FROM audit_seals WHERE seq = 2",
    ],
)
def test_what_was_changed_is_not_archived_and_stays(
    log: Engine, old: Head, tmp_path: Path, tamper: str, caplog: pytest.LogCaptureFixture
) -> None:
    del old
    write(log)
    sealed(log)
    with log.begin() as owner:
        without_triggers(owner)
        owner.execute(text(tamper))
        with_triggers(owner)
    before = count_of(log, ROWS)
    Archiver(log, tmp_path, 30).run_once()

    if "seq = 2" in tamper:  # the seals before the gap are whole
        assert count_of(log, "SELECT min(seq) FROM audit_seals") <= 3
    else:
        assert count_of(log, ROWS) == before
        assert [vars(record)["action"] for record in caplog.records] == ["audit_archive_refused"]


def edited(path: Path, number: int, change: Any) -> None:
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    document = json.loads(lines[number])
    change(document)
    lines[number] = json.dumps(document)
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda line: line["rows"][0].update(reason="another"), Kind.CHANGED),
        (lambda line: line["rows"].pop(0), Kind.MISSING),
        (lambda line: line["seal"].update(cluster="7"), Kind.SEAL_CHANGED),
        (lambda line: line["seal"].update(prev_hash="00" * 32), Kind.CHAIN_BROKEN),
    ],
)
def test_a_changed_archive_is_found(
    log: Engine, old: Head, tmp_path: Path, change: Any, kind: Kind
) -> None:
    write(log)
    sealed(log)
    Archiver(log, tmp_path, 30).run_once()
    (path,) = archives_in(tmp_path)
    edited(path, 2, change)

    assert kind in verify(log, [old], [path]).counts


def test_an_archive_of_another_log_does_not_fit(log: Engine, old: Head, tmp_path: Path) -> None:
    write(log)
    sealed(log)
    Archiver(log, tmp_path, 30).run_once()
    (path,) = archives_in(tmp_path)

    def forge(line: dict[str, Any]) -> None:
        line["seal"]["hash"] = "11" * 32

    edited(path, 2, forge)
    found = verify(log, [old], [path]).counts
    assert {Kind.SEAL_CHANGED, Kind.HEAD_DIFFERS, Kind.CHAIN_BROKEN} <= set(found)


@pytest.mark.parametrize(
    "content",
    [b"", b"elephant", gzip.compress(b"{}\n"), gzip.compress(b'{"taskyard_audit')],
    ids=["empty", "no gzip", "no head", "half a head"],
)
def test_what_is_no_archive_is_refused(log: Engine, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "audit.jsonl.gz"
    path.write_bytes(content)

    with pytest.raises(InvalidPayload, match=r"cannot be read at line 1: .* Give a file that the"):
        verify(log, [], [path])
    with pytest.raises(InvalidPayload, match="cannot be read"):
        list(read_archive(tmp_path / "none.gz"))


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM operator_audit_log", "append-only"),
        ("DELETE FROM audit_seals", "append-only"),
        ("UPDATE audit_seals SET seq = seq + 10", "append-only"),
        ("TRUNCATE audit_seals", "append-only"),
        ("SELECT taskyard_remove_archived_audit(1)", "no seal says that the audit log is archived"),
    ],
)
def test_nothing_leaves_in_another_way(log: Engine, old: Head, statement: str, said: str) -> None:
    del old
    with pytest.raises(DBAPIError, match=said), log.begin() as connection:
        connection.execute(text(statement))


def test_what_is_younger_than_thirty_days_stays_whoever_asks(log: Engine, tmp_path: Path) -> None:
    write(log)
    sealed(log)
    age_seals(log, 20)
    write(log)
    sealed(log)

    with pytest.raises(DBAPIError, match="was sealed within the last 30 days stays"):
        Archiver(log, tmp_path, 10).run_once()
    assert count_of(log, ROWS) == 2
    assert count_of(log, SEALS) == 2


def test_only_the_owner_is_let_through_by_the_setting(
    log: Engine, old: Head, servers: Servers
) -> None:
    del old
    role = f"r{uuid.uuid4().hex[:8]}"
    url = administrator_url(servers, log.url.render_as_string(hide_password=False))
    with opened(url) as admin, admin.connect() as connection:
        for statement in (
            f"CREATE ROLE {role}",
            f"GRANT DELETE, SELECT ON operator_audit_log TO {role}",
            "SET LOCAL taskyard.removes_archived_audit = 'on'",
            f"SET LOCAL ROLE {role}",
        ):
            connection.execute(text(statement))
        with pytest.raises(DBAPIError, match="append-only"):
            connection.execute(text("DELETE FROM operator_audit_log"))


def retention(log: Engine, folder: Path | None = None, **values: Any) -> Retention:
    if folder is not None:
        values["audit_archive_folder"] = folder
    return Retention(Settings(**values), log)


def test_done_intents_go_but_for_those_of_jobs_that_have_not_ended(log: Engine) -> None:
    letters = [make_letter(job_id=f"job-{number}") for number in range(2)]
    with log.begin() as connection:
        store_letters(connection, [make_delivery(letter) for letter in letters])
        connection.execute(update(LETTERS).values(status="replayed"))
        ended = uuid.UUID(letters[0].letter_id)
        connection.execute(
            update(LETTERS).where(LETTERS.c.id == ended).values(replay_outcome="success")
        )
        for days, letter in ((31, 0), (31, 1), (29, 0), (None, 0)):
            done = None if days is None else datetime.now(UTC) - timedelta(days=days)
            payload = {"letter_id": letters[letter].letter_id}
            connection.execute(
                insert(OUTBOX).values(
                    id=uuid.uuid4(), kind="replay", job_id="j", epoch=1, payload=payload,
                    done_at=done,
                )
            )  # fmt: skip
    retention(log).run_once()

    left = "SELECT count(*) FROM outbox WHERE done_at < now() - interval '30 days'"
    assert (count_of(log, "SELECT count(*) FROM outbox"), count_of(log, left)) == (3, 1)


def test_old_counts_of_denials_go(log: Engine) -> None:
    audit.count_unverified(log, "ops", "malformed")
    with log.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO unverified_denials SELECT now() - interval '91 days', 's' || n, "
                "'w', 1 FROM generate_series(1, 1500) AS n"
            )
        )
    retention(log).run_once()

    assert count_of(log, "SELECT count(*) FROM unverified_denials") == 1


def test_archives_are_written_and_dropped_by_the_settings(
    log: Engine, old: Head, tmp_path: Path
) -> None:
    del old
    write(log)
    sealed(log)
    retention(log, tmp_path, audit_retention_days=30).run_once()
    (path,) = archives_in(tmp_path)
    retention(log, tmp_path, audit_retention_days=30, audit_archive_retention_days=41).run_once()
    assert archives_in(tmp_path) == [path]
    retention(log, tmp_path, audit_retention_days=30, audit_archive_retention_days=35).run_once()

    assert archives_in(tmp_path) == []
    assert verify(log, []).findings == []


def test_a_folder_that_cannot_be_written_removes_nothing(
    log: Engine, old: Head, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    del old
    (tmp_path / "file").write_text("")
    retention(log, tmp_path / "file" / "folder", audit_retention_days=30).run_once()

    assert [vars(record)["action"] for record in caplog.records] == ["audit_archive_failed"]
    assert count_of(log, ROWS) == 5


def test_of_two_archivers_at_once_one_works_and_clears_what_a_third_left(
    log: Engine, old: Head, tmp_path: Path
) -> None:
    del old
    (tmp_path / ".audit-1.partial").write_text("half")
    lock = "SELECT pg_advisory_xact_lock(hashtextextended('taskyard.audit.archiver public', 0))"
    with log.begin() as other:
        other.execute(text(lock))
        assert Archiver(log, tmp_path, 30).run_once() == 0
    assert Archiver(log, tmp_path, 30).run_once() == 5

    assert list(tmp_path.glob(".*")) == []


def test_rows_that_postgres_does_not_let_go_are_reported_and_stay(
    log: Engine, old: Head, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    del old
    write(log, 1, age_days=-400)
    sealed(log)
    age_seals(log, 40)
    write(log)
    sealed(log)
    retention(log, tmp_path, audit_retention_days=30).run_once()

    assert [vars(record)["action"] for record in caplog.records] == ["audit_archive_failed"]
    assert "what was audited within the last 30 days stays" in caplog.text
    assert count_of(log, ROWS) == 7


def test_while_the_clocks_differ_nothing_is_dropped(
    log: Engine, old: Head, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    del old

    class Ahead:
        def now(self) -> datetime:
            return datetime.now(UTC) + timedelta(hours=2)

        def monotonic_s(self) -> float:
            return 0.0

        def wait_s(self, seconds: float) -> None:
            raise AssertionError(seconds)

    settings = Settings(audit_retention_days=30, audit_archive_folder=tmp_path)
    Retention(settings, log, Ahead()).run_once()

    assert [vars(record)["action"] for record in caplog.records] == ["retention_clocks_differ"]
    assert count_of(log, ROWS) == 5


def test_a_sealer_does_not_miss_the_head_that_was_archived(
    log: Engine, old: Head, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = audit.Sealer(log, lambda _: None, old)
    write(log)
    sealer(log).run_once()
    Archiver(log, tmp_path, 30).run_once()
    write(log)

    assert one.run_once() == 1
    assert caplog.records == []


def test_the_command_takes_archives_and_folders(
    log: Engine, old: Head, tmp_path: Path, servers: Servers
) -> None:
    write(log)
    sealed(log)
    folder = tmp_path / "archives"
    Archiver(log, folder, 30).run_once()
    url = log.url.render_as_string(hide_password=False)
    shell = connected_shell(tmp_path, servers, url)

    ran = shell.run("audit", "verify", "--head", str(old), "--archive", str(folder), "--json")
    none = shell.run("audit", "verify", "--archive", str(tmp_path))

    assert (ran.code, ran.document["archived_rows"], ran.document["heads_found"]) == (0, 5, 1)
    assert (none.code, "holds no archive of the audit log" in none.err) == (2, True)
