"""`taskyard up` and the commands that find it: a day at the console."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.gate import Gate
from support.letters import DIED_US, make_delivery, make_letter
from support.shell import Shell
from support.taskyard_up import Up
from support.waiting import eventually
from taskyard.clock import from_us
from taskyard.database import create_partitions, engine
from taskyard.mirror.store_letters import store_letters
from taskyard.ops.embedded import EmbeddedStack
from taskyard.records import Records
from taskyard.settings import load
from taskyard.store import connect

BUTTON = '{"html": "<button>Buy</button>"}'
LOST = '{"html": "<button>Buy</button>", "known_html": "<a id=x>Foo</a>", "selector": "#x"}'
FOUND = '{"html": "<a id=x>Foo</a>", "known_html": "<a id=x>Foo</a>", "selector": "#x"}'
REASON = "The page has its link again, ticket 4711"
USED = "using the servers that `taskyard up` runs in .taskyard\n"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with Up(tmp_path_factory.mktemp("up")) as running:
        for name in ("locator", "exec", "plan", "ops"):
            running.wait_for(f"INFO {name}.")
        running.wait_for("mirror ready")
        running.wait_for("relay ready")
        yield running


@pytest.fixture
def shell(up: Up) -> Shell:
    return up.shell


def exported(shell: Shell) -> dict[str, str]:
    variables: dict[str, str] = shell.run("env", "--export", "--json").document
    return variables


def one_letter(shell: Shell, job_id: str) -> dict[str, Any]:
    """The dead letter of a job, once the mirror has it."""

    def found() -> list[dict[str, Any]]:
        listed = shell.run("dlq", "list", "--type", "element_healing", "--json").document
        return [row for row in listed if row["original_request_id"] == job_id]

    (letter,) = eventually(found, f"a letter of job {job_id}")
    return letter


# --- finding the stack ------------------------------------------------------------------------


def test_it_says_what_runs_where_and_what_to_do_next(up: Up) -> None:
    head = up.log.partition("started (pid")[0]

    assert "workers     plan, exec, locator, ops" in head
    assert 'next        eval "$(taskyard env --export)"' in head
    assert ":[redacted]@127.0.0.1:" in head


def test_operator_commands_use_it_and_say_so_once(shell: Shell) -> None:
    spoken = shell.run("jobs", "list")
    silent = shell.run("jobs", "list", "--json")

    assert spoken.code == 0
    assert spoken.err.count(USED) == 1
    assert silent.err == ""
    assert isinstance(silent.document, list)


def test_nothing_is_wrong_with_it(shell: Shell) -> None:
    ran = shell.run("check", "--json")

    assert (ran.code, ran.document["ok"]) == (0, True)


def test_a_client_does_not_look_for_it(shell: Shell) -> None:
    code = "from taskyard.client import Taskyard; Taskyard()"

    done = subprocess.run(
        [sys.executable, "-c", code],
        env=shell.environ(),
        cwd=shell.folder,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "MissingSetting: TASKYARD_REDIS_URL is not set" in done.stderr


def test_celery_itself_does_not_look_for_it(shell: Shell) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "celery", "--app", "taskyard.workers.app", "report"],
        env=shell.environ(),
        cwd=shell.folder,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "is not set" in done.stderr


def test_a_shell_that_evaluates_the_export_uses_it_too(shell: Shell, tmp_path: Path) -> None:
    lines = shell.run("env", "--export").out

    variables = dict(line.removeprefix("export ").split("=", 1) for line in lines.splitlines())
    shown = Shell(tmp_path, variables).run("env", "--json").document

    assert shown["redis_url"]["origin"] == "TASKYARD_REDIS_URL"
    assert shown["trust_local"] == {"value": True, "origin": "TASKYARD_TRUST_LOCAL"}


def test_a_second_stack_in_the_same_home_is_refused(shell: Shell) -> None:
    ran = shell.run("up")

    assert ran.code == 5
    assert "is in use by process" in ran.err


# --- jobs -------------------------------------------------------------------------------------


def test_a_job_is_enqueued_waited_for_and_its_result_printed(shell: Shell) -> None:
    ran = shell.run("jobs", "enqueue", "batch_locator_generation", BUTTON, "--wait")

    first, _, rest = ran.out.partition("\n")
    assert ran.code == 0
    assert first.endswith(" created")
    assert json.loads(rest)["elements"][0]["locators"]


def test_the_same_key_is_the_same_job(shell: Shell) -> None:
    words = ("jobs", "enqueue", "batch_locator_generation", BUTTON, "--key", "k1", "--json")

    first, second = shell.run(*words).document, shell.run(*words).document

    assert first["created"] is True
    assert second["created"] is False
    assert first["job_id"] == second["job_id"]


def test_ids_flow_from_one_command_to_the_next(shell: Shell) -> None:
    ids = "".join(
        shell.run("jobs", "enqueue", "batch_locator_generation", "-", stdin=BUTTON).out
        for _ in range(2)
    )

    ran = shell.run("jobs", "wait", "-", "--json", stdin=ids)

    assert ran.code == 0
    assert [ended["state"] for ended in ran.document] == ["completed", "completed"]


def test_a_job_is_shown_from_record_and_ledger(shell: Shell) -> None:
    words = ("jobs", "enqueue", "batch_locator_generation", BUTTON, "--wait", "--json")
    job_id = shell.run(*words).document["job_id"]

    def in_ledger() -> Any:
        view = shell.run("jobs", "show", job_id[:8], "--json").document
        return view if (view["ledger"] or {}).get("state") == "completed" else None

    view = eventually(in_ledger, "the job in the ledger")

    assert view["record"]["state"] == "completed"
    assert [event["event"] for event in view["history"]] == ["admit", "begin", "complete"]


def test_with_postgres_away_the_ledger_is_unknown_and_the_record_is_shown(
    shell: Shell, tmp_path: Path
) -> None:
    words = ("jobs", "enqueue", "batch_locator_generation", BUTTON, "--wait", "--json")
    job_id = shell.run(*words).document["job_id"]
    away = {**exported(shell), "TASKYARD_DATABASE_URL": "postgresql://127.0.0.1:1/nothing"}

    ran = Shell(tmp_path, away).run("jobs", "show", job_id[:8])

    assert ran.code == 0
    assert "state     completed" in ran.out
    assert "ledger    unknown (Postgres at postgresql://127.0.0.1:1/nothing does not" in ran.out


def test_waiting_too_long_and_waiting_for_a_dead_letter_have_codes_of_their_own(
    shell: Shell,
) -> None:
    later = ("--countdown", "600", "--wait", "--timeout", "0.1")

    late = shell.run("jobs", "enqueue", "batch_locator_generation", BUTTON, *later)
    dead = shell.run("jobs", "enqueue", "element_healing", LOST, "--wait")

    assert late.code == 7
    assert "is still accepted after 0.1 s. See: taskyard jobs show" in late.err
    assert dead.code == 8
    assert "error: dead-lettered (low_confidence: " in dead.err
    assert "See: taskyard dlq show " in dead.err


def test_an_interrupted_wait_is_quiet(shell: Shell) -> None:
    words = ("jobs", "enqueue", "batch_locator_generation", BUTTON, "--countdown", "600")
    job_id = shell.run(*words).out.split()[0]
    waiting = shell.start("jobs", "wait", job_id, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert waiting.stderr is not None
    waiting.stderr.readline()

    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate(timeout=60)

    assert (waiting.returncode, out, err) == (130, "", "")


# --- dead letters -----------------------------------------------------------------------------


def test_a_letter_is_found_shown_replayed_once_and_its_job_completes(shell: Shell) -> None:
    job_id = shell.run("jobs", "enqueue", "element_healing", LOST).out.split()[0]
    letter = one_letter(shell, job_id)
    identified = {"TASKYARD_TRUST_LOCAL": "1"}

    shown = shell.run("dlq", "show", letter["id"][:8])
    assert "code           low_confidence" in shown.out
    assert f"next  taskyard dlq replay {letter['id']} --reason" in shown.out
    why = ("--reason", "Compare the captured message with its source")
    raw = shell.run("dlq", "show", letter["id"], "--raw", *why, **identified).document
    assert raw["headers"]["task"] == "element_healing"

    words = ("dlq", "replay", letter["id"], "--reason", REASON, "--payload", FOUND)
    replayed = shell.run(*words, "--json", **identified)
    assert replayed.code == 0
    assert (replayed.document["applied"], replayed.document["refused"]) == (1, 0)
    assert shell.run("jobs", "wait", job_id, "--replay").code == 0

    again = shell.run(*words, **identified)
    assert again.code == 5
    assert f"letter {letter['id']} was already replayed at " in again.err
    assert again.err.endswith("See: taskyard dlq list\n")


def test_a_replayed_letter_tells_who_replayed_it_why_and_what_became_of_it(shell: Shell) -> None:
    job_id = shell.run("jobs", "enqueue", "element_healing", LOST).out.split()[0]
    letter = one_letter(shell, job_id)["id"]
    words = ("dlq", "replay", letter, "--reason", REASON)
    assert shell.run(*words, TASKYARD_TRUST_LOCAL="1").code == 0

    def outcome() -> Any:
        document = shell.run("dlq", "show", letter, "--json").document
        return document if document["replay_outcome"] and document["next_letter"] else None

    document = eventually(outcome, "the end of the replay")
    shown = shell.run("dlq", "show", letter).out
    new = shell.run("dlq", "show", document["next_letter"], "--json").document

    assert (document["replayable"], document["replay_outcome"]) == (False, "failed")
    (replay,) = document["replays"]
    assert (replay["outcome"], replay["generation"], replay["reason"]) == ("applied", 1, REASON)
    assert re.search(r"replayable +no: was already replayed at .* UTC by local:", shown)
    assert re.search(rf"replayed +.* UTC by {re.escape(replay['by'])}\n", shown)
    assert re.search(rf"  reason +{re.escape(REASON)}\n", shown)
    assert re.search(r"  into +generation 1 \(applied\)\n", shown)
    assert re.search(rf"  ended +failed: its new letter is {document['next_letter']}\n", shown)
    assert shown.endswith(f"next  taskyard dlq show {document['next_letter']}\n")
    assert (new["original_request_id"], new["generation"], new["replayable"]) == (job_id, 1, True)


def test_a_job_that_completed_after_a_replay_has_no_cause_in_the_list(shell: Shell) -> None:
    job_id = shell.run("jobs", "enqueue", "element_healing", LOST).out.split()[0]
    letter = one_letter(shell, job_id)["id"]

    def row(state: str) -> Any:
        listed = shell.run("jobs", "list", "--type", "element_healing", "--json").document
        found = [row for row in listed if (row["job_id"], row["state"]) == (job_id, state)]
        return found[0] if found else None

    dead = eventually(lambda: row("dead_lettered"), "the dead job in the list")
    words = ("dlq", "replay", letter, "--reason", REASON, "--payload", FOUND)
    assert shell.run(*words, TASKYARD_TRUST_LOCAL="1").code == 0
    completed = eventually(lambda: row("completed"), "the completed job in the list")
    shown = shell.run("jobs", "show", job_id)

    assert (dead["code"], dead["letter_id"]) == ("low_confidence", letter)
    assert (completed["code"], completed["category"], completed["letter_id"]) == (None, None, None)
    assert "low_confidence" in shown.out  # in the history


def test_every_pool_of_up_consumes_its_queue(shell: Shell) -> None:
    rows = shell.run("queues", "list", "--json").document

    assert {row["queue"]: row["consumers"] for row in rows} == dict.fromkeys(
        ("plan", "exec", "locator", "ops"), 1
    )


def test_many_letters_are_counted_and_a_refusal_does_not_stop_the_rest(shell: Shell) -> None:
    job_id = shell.run("jobs", "enqueue", "element_healing", LOST).out.split()[0]
    letter = one_letter(shell, job_id)
    words = ("dlq", "replay", "0123456789", letter["id"], "--reason", REASON)

    ran = shell.run(*words, TASKYARD_TRUST_LOCAL="1")

    lines = ran.out.splitlines()
    assert ran.code == 4
    assert lines[0].startswith("refused  0123456789: there is no dead letter '0123456789'")
    assert lines[1].startswith(f"applied  {letter['id']}. See: taskyard jobs wait {job_id}")
    assert lines[2] == "1 applied, 0 pending, 1 refused"


def test_letters_are_filtered_and_counted(shell: Shell) -> None:
    job_id = shell.run("jobs", "enqueue", "element_healing", LOST).out.split()[0]
    letter = one_letter(shell, job_id)

    mine = shell.run(
        "dlq", "list", "--category", "non_retryable", "--since", "1h", "--queue", "locator"
    )
    others = shell.run("dlq", "list", "--category", "poison")
    counted = shell.run("dlq", "stats", "--json").document

    assert letter["id"][:8] in mine.out
    assert "no dead letter matches" in others.err
    assert counted["by_category"]["non_retryable"] >= 1


def test_without_a_relay_a_replay_is_pending_and_no_failure(
    shell: Shell, tmp_path: Path, database_url: str
) -> None:
    letter = make_letter()
    database = engine(database_url)
    with database.begin() as connection:
        create_partitions(connection, from_us(DIED_US))
        store_letters(connection, [make_delivery(letter)])
    database.dispose()
    variables = {**exported(shell), "TASKYARD_DATABASE_URL": database_url}

    ran = Shell(tmp_path, variables).run("dlq", "replay", letter.letter_id, "--reason", REASON)

    assert ran.code == 0
    assert ran.out.startswith(f"pending  {letter.letter_id}: the relay has not answered yet")


# --- the end ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_workers_the_rest_runs_and_ends_with_0(tmp_path: Path) -> None:
    with Up(tmp_path, "--no-workers") as up:
        up.wait_for("workers     none (--no-workers)")
        up.wait_for("mirror ready")
        up.wait_for("relay ready")
        up.interrupt()

        assert up.code() == 0, up.log
    assert "celery" not in up.log


@pytest.mark.slow
def test_ctrl_c_lets_a_running_job_finish(tmp_path: Path) -> None:
    with Gate() as gate, Up(tmp_path) as up:
        up.wait_for("INFO locator.")
        payload = json.dumps({"url": gate.url, "budget_s": 60})
        job_id = up.shell.run("jobs", "enqueue", "batch_locator_generation", payload).out.split()[0]
        eventually(gate.asked.is_set, "the job at the gate", why=lambda: up.log)

        up.interrupt()
        up.wait_for("SIGINT received, draining")
        gate.open()

        assert up.code() == 0, up.log
    assert "Traceback" not in up.log
    with EmbeddedStack(tmp_path / ".taskyard") as stack:
        settings = load(stack.environment(), tmp_path).settings
        with connect(stack.redis_url) as client:
            assert Records(client, settings).read(job_id).state == "completed"


@pytest.mark.parametrize("pid_file", ["valkey.pid", "postmaster.pid"])
@pytest.mark.slow
def test_a_server_that_dies_ends_it_with_the_reason_and_the_next_step(
    tmp_path: Path, pid_file: str
) -> None:
    with Up(tmp_path, "--no-workers") as up:
        up.wait_for("mirror ready")
        (file,) = (tmp_path / ".taskyard").rglob(pid_file)
        os.kill(int(file.read_text().splitlines()[0]), signal.SIGKILL)
        assert up.code() == 1, up.log
    assert re.search(r"(Valkey|PostgreSQL) has ended, so everything stops", up.log)
    assert "Start again with: taskyard up" in up.log
