"""`taskyard audit`: what was done by whom, and whether the log was changed."""

from __future__ import annotations

import csv
import json
import subprocess
import uuid
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from servers import Servers
from support.audit import sealed, without_triggers, write
from support.databases import new_database
from support.shell import Shell, connected_shell
from support.waiting import eventually
from taskyard import audit
from taskyard.access import Action, Identity, Role
from taskyard.audit.read import Filters, list_rows
from taskyard.control.permit_audit_export import export_audit
from taskyard.database import migrate, opened
from taskyard.errors import NotPermitted

# Mirror, relay, reconcile and operators: by the role that they have in production.
AS_RUNTIME = True


@pytest.fixture
def shell(tmp_path: Path, servers: Servers, database_url: str) -> Shell:
    return connected_shell(tmp_path, servers, database_url, TASKYARD_TRUST_LOCAL="1")


def test_a_log_that_was_not_changed_is_verified_against_its_head(
    shell: Shell, database: Engine
) -> None:
    write(database, 2)
    head = sealed(database)
    write(database)

    ran = shell.run("audit", "verify", "--head", str(head))
    found = shell.run("audit", "verify", "--head", str(head), "--json").document

    assert ran.code == 0
    assert f"the head is {head}" in ran.out
    assert "1 row is not sealed yet, for " in ran.out
    assert "no sealed row was changed, and 1 exported head is in it" in ran.out
    assert (found["intact"], found["head"], found["unsealed_rows"]) == (True, str(head), 1)


def test_a_changed_row_is_named_and_ends_with_1(shell: Shell, servers: Servers) -> None:
    url = new_database(servers)
    migrate(url)
    with opened(url) as database:
        write(database, 3)
        head = sealed(database)
        with database.begin() as owner:
            without_triggers(owner)
            owner.execute(text("UPDATE operator_audit_log SET reason = '\x1b[2J' WHERE id = 2"))
    (shell.folder / "heads").write_text(f"{head}\n")

    ran = shell.run("audit", "verify", TASKYARD_DATABASE_URL=url, TASKYARD_AUDIT_HEAD_FILE="heads")
    words = ("audit", "verify", "--json")
    found = shell.run(*words, TASKYARD_DATABASE_URL=url)

    assert ran.code == found.code == 1
    assert "changed: row 2 differs from seal 1 of " in ran.out
    assert found.document["counts"] == {"changed": 1}
    assert "not compared with an exported head" in found.document["notes"][0]


def test_a_word_that_is_no_head_is_refused(shell: Shell) -> None:
    ran = shell.run("audit", "verify", "--head", "elephant")

    assert ran.code == 2
    assert "expected a head (SEQ:HASH, or the hash alone), or a file with heads" in ran.err


SPREADSHEET = '=HYPERLINK("http://evil/", "open")'
WHY = "Audit of the third quarter, ticket 12345"


@pytest.fixture
def requested(database: Engine) -> uuid.UUID:
    """A request of one test's own, that was asked for and refused, with what hurts readers."""
    request_id = uuid.uuid4()
    write(
        database,
        request_id=request_id,
        reason=SPREADSHEET,
        detail={"password": "hunter2", "text": "a\x1b[2J\u202eb"},
    )
    with database.begin() as connection:
        audit.answer(connection, request_id, "refused: the job has ended", {})
    return request_id


def test_the_list_shows_the_newest_rows_that_fit(shell: Shell, requested: uuid.UUID) -> None:
    rows = shell.run("audit", "list", "--limit", "2", "--json").document
    text = shell.run("audit", "list", "--outcome", "refused", "--since", "1h").out

    assert [row["outcome"] for row in rows] == ["refused: the job has ended", "requested"]
    assert {row["request_id"] for row in rows} == {str(requested)}
    assert {row["job_id"] for row in rows} == {"job-1"}
    line = next(line for line in text.splitlines() if line.startswith(str(requested)[:8]))
    assert "controlled_replay" in line
    assert "ops@example.com for customer@example.com" in line
    assert "requested" not in text.replace("request ", "")


@pytest.mark.parametrize(
    ("words", "fits"),
    [
        (("--action", "controlled_replay"), True),
        (("--action", "whoami"), False),
        (("--by", "ops@example.com"), True),
        (("--by", "eve@example.com"), False),
        (("--job", "job-1"), True),
        (("--job", "job-2"), False),
        (("--job", "job-"), False),
        (("--letter", str(uuid.uuid4())), False),
        (("--outcome", "denied"), False),
    ],
)
def test_the_list_is_narrowed_by_each_filter(
    shell: Shell, requested: uuid.UUID, words: tuple[str, ...], fits: bool
) -> None:
    rows = shell.run("audit", "list", *words, "--json").document

    assert (str(requested) in {row["request_id"] for row in rows}) is fits


def test_a_request_is_shown_whole_with_the_seals_of_its_rows(
    shell: Shell, database: Engine, requested: uuid.UUID
) -> None:
    head = sealed(database)
    with database.begin() as connection:
        audit.answer(connection, requested, "applied", {})

    text = shell.run("audit", "show", str(requested)[:12]).out
    rows = shell.run("audit", "show", str(requested), "--json").document

    assert [row["seal"] for row in rows] == [head.seq, head.seq, None]
    assert "by            ops@example.com, via token:1a2b" in text
    assert "the job has ended" in text
    assert "not yet" in text
    assert "hunter2" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("elephant", 4, "is not a request's id: expected a UUID or at least 6"),
        ("00000000", 4, "the audit log has no request"),
    ],
)
def test_a_request_that_is_not_there_is_not_found(
    shell: Shell, name: str, code: int, said: str
) -> None:
    ran = shell.run("audit", "show", name)

    assert (ran.code, said in ran.err) == (code, True)


def test_an_export_has_a_line_a_row_and_leaves_a_row_of_its_own(
    shell: Shell, database: Engine, requested: uuid.UUID
) -> None:
    ran = shell.run("audit", "export", "--reason", WHY, "--job", "job-1")

    rows = [json.loads(line) for line in ran.out.splitlines()]
    mine = [row for row in rows if row["request_id"] == str(requested)]
    assert [row["outcome"] for row in mine] == ["requested", "refused: the job has ended"]
    assert "hunter2" not in ran.out
    assert "\x1b" not in ran.out
    assert "\u202e" not in ran.out
    assert mine[0]["job_id"] == mine[0]["target_request_id"] == "job-1"
    assert mine[0]["detail"]["text"] == "a\x1b[2J\u202eb"
    (own,) = list_rows(database, Filters(action=Action.EXPORT_AUDIT), 1)
    assert own["outcome"] == "applied"
    assert own["reason"] == WHY
    assert own["detail"] == {"rows": len(rows), "filters": {"job": "job-1"}}
    assert f"{len(rows)} rows; the export is request {own['request_id']}" in ran.err


def test_an_export_in_json_is_one_document(shell: Shell, requested: uuid.UUID) -> None:
    words = ("audit", "export", "--reason", WHY, "--since", "1h", "--json")
    whole = shell.run(*words).document
    filed = shell.run(*words, "--out", "rows.jsonl").document

    assert str(requested) in {row["request_id"] for row in whole["rows"]}
    lines = (shell.folder / "rows.jsonl").read_text().splitlines()
    assert (filed["count"], filed["file"]) == (len(lines), "rows.jsonl")


def test_a_spreadsheet_computes_nothing_of_an_export(
    shell: Shell, requested: uuid.UUID, database: Engine
) -> None:
    write(database, operator_identity="\t@SUM(1)", reason="-1+2 of the outage", on_behalf_of=None)
    words = ("--format", "csv", "--out", "audit.csv")
    ran = shell.run("audit", "export", "--reason", WHY, *words)

    path = shell.folder / "audit.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert (ran.code, ran.out) == (0, "")
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    reasons = {row["reason"] for row in rows if row["request_id"] == str(requested)}
    assert reasons == {f"'{SPREADSHEET}"}
    assert (rows[-1]["operator_identity"], rows[-1]["reason"]) == (
        "'\t@SUM(1)",
        "'-1+2 of the outage",
    )
    assert not any(
        cell.lstrip()[:1] in set("=+-@|%") - {""} for row in rows for cell in row.values()
    )


@pytest.mark.parametrize(
    ("words", "variables", "code", "outcome"),
    [
        ((), {}, 2, "refused: a reason is required"),
        (("--reason", "fix it"), {}, 2, "refused: the reason 'fix it' is too short"),
        (("--reason", WHY), {"TASKYARD_TRUST_LOCAL": "0"}, 6, None),
    ],
)
def test_an_export_without_identity_or_reason_is_refused_and_writes_nothing(
    shell: Shell,
    database: Engine,
    words: tuple[str, ...],
    variables: dict[str, str],
    code: int,
    outcome: str | None,
) -> None:
    before = list_rows(database, Filters(action=Action.EXPORT_AUDIT), 1)
    ran = shell.run("audit", "export", "--out", "none.csv", *words, **variables)

    assert ran.code == code
    assert list(shell.folder.glob("*none*")) == []
    rows = list_rows(database, Filters(action=Action.EXPORT_AUDIT), 1)
    if outcome is None:
        assert rows == before
    else:
        assert rows[0]["outcome"].startswith(outcome)


def test_a_right_that_is_missing_denies_an_export(database: Engine) -> None:
    operator = Identity("op@example.com", via="test", role=Role.OPERATOR)
    with (
        pytest.raises(NotPermitted, match="may not do export_audit"),
        export_audit(database, Filters(), identity=operator, reason=WHY),
    ):
        pass

    (row,) = list_rows(database, Filters(identity="op@example.com"), 1)
    assert (row["action_type"], row["outcome"]) == ("export_audit", "denied")


def test_an_export_of_many_pages_is_of_one_snapshot(database: Engine) -> None:
    admin = Identity("admin@example.com", via="test", role=Role.ADMIN)
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO operator_audit_log (request_id, action_type, operator_identity, "
                "identity_via, reason, outcome) SELECT gen_random_uuid(), 'whoami', 'many', "
                "'local', 'r', 'applied' FROM generate_series(1, 2500)"
            )
        )
    with export_audit(database, Filters(identity="many"), identity=admin, reason=WHY) as export:
        write(database, operator_identity="many")
        ids = [row["id"] for row in export.rows]

    assert export.count == len(set(ids)) == 2500
    assert ids == sorted(ids)


def lines_of(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.slow  # twice the sealer's interval, and three starts of a relay
def test_a_relay_that_is_killed_leaves_a_chain_and_heads_that_verify(
    tmp_path: Path, servers: Servers
) -> None:
    url = new_database(servers)
    migrate(url)
    shell = connected_shell(tmp_path, servers, url, TASKYARD_AUDIT_HEAD_FILE="heads")
    heads = shell.folder / "heads"
    with opened(url) as database, (shell.folder / "relay.log").open("w") as log:
        for round_number in range(1, 4):
            relay = shell.start("relay", stdout=log, stderr=subprocess.STDOUT)
            try:
                write(database, 5)
                eventually(
                    lambda: lines_of(heads) >= round_number,  # noqa: B023 - in this round
                    "a head in the file",
                    why=(shell.folder / "relay.log").read_text,
                )
                write(database, 5)
            finally:
                relay.kill()
                relay.wait(30)
        rows = sealed(database)

    ran = shell.run("audit", "verify", "--head", "relay.log", "--head", str(rows), "--json")
    assert ran.code == 0, ran.out
    assert ran.document["rows"] == 30
    assert ran.document["heads_found"] >= 4
