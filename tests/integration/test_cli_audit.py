"""`taskyard audit`: what was done by whom, and whether the log was changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from servers import Servers
from support.audit import sealed, without_triggers, write
from support.databases import new_database
from support.shell import Shell, connected_shell
from taskyard.database import migrate, opened


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
    assert "1 rows are not sealed yet" in ran.out
    assert "nothing sealed was changed, and 1 exported heads are in it" in ran.out
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
    assert "changed: row 2 is not as seal 1 of " in ran.out
    assert found.document["counts"] == {"changed": 1}
    assert "compared with no exported head" in found.document["notes"][0]


def test_a_word_that_is_no_head_is_refused(shell: Shell) -> None:
    ran = shell.run("audit", "verify", "--head", "elephant")

    assert ran.code == 2
    assert "expected a head (SEQ:HASH, or the hash alone), or a file with heads" in ran.err
