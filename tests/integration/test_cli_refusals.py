"""What the command line says when it cannot do what it was asked: one line, the next command."""

from __future__ import annotations

import uuid

import pytest

from support.kill_switches import REASON, turn_on
from support.shell import Shell
from taskyard.records import Records
from taskyard.settings import load
from taskyard.store import connect
from taskyard.switches import SwitchField

NOWHERE = "redis://:hunter2@127.0.0.1:1/0"
NO_DATABASE = "postgresql://someone:hunter2@127.0.0.1:1/nothing"
BUTTON = '{"html": "<button>Buy</button>"}'


def test_a_missing_url_is_named_with_what_it_is_for_and_the_way_out(bare_shell: Shell) -> None:
    ran = bare_shell.run("jobs", "enqueue", "plan_generation", "{}")

    assert ran.code == 2
    assert ran.out == ""
    assert ran.err == (
        "error: TASKYARD_REDIS_URL is not set: it names the Redis that holds the job records. "
        "Set it, or start everything on this machine with: taskyard up\n"
    )


@pytest.mark.parametrize(
    ("words", "variable"),
    [
        (("worker", "--pool", "exec"), "TASKYARD_BROKER_URL"),
        (("mirror",), "TASKYARD_DATABASE_URL"),
        (("relay",), "TASKYARD_DATABASE_URL"),
        (("migrate",), "TASKYARD_DATABASE_URL"),
        (("jobs", "show", "0" * 8), "TASKYARD_REDIS_URL"),
        (("dlq", "list"), "TASKYARD_DATABASE_URL"),
    ],
)
def test_every_command_that_needs_a_server_names_its_variable(
    bare_shell: Shell, words: tuple[str, ...], variable: str
) -> None:
    ran = bare_shell.run(*words)

    assert ran.code == 2
    assert ran.err.startswith(f"error: {variable} is not set: ")


def test_an_unreachable_redis_is_told_without_its_password(bare_shell: Shell) -> None:
    ran = bare_shell.run(
        "jobs",
        "enqueue",
        "batch_locator_generation",
        BUTTON,
        TASKYARD_REDIS_URL=NOWHERE,
        TASKYARD_BROKER_URL=NOWHERE,
    )

    assert ran.code == 3
    assert "error: Redis at redis://:[redacted]@127.0.0.1:1/0 does not answer (" in ran.err
    assert "`taskyard check` shows when it answers" in ran.err
    assert "hunter2" not in ran.err


def test_an_unreachable_postgres_is_told_without_its_password(bare_shell: Shell) -> None:
    ran = bare_shell.run("dlq", "list", TASKYARD_DATABASE_URL=NO_DATABASE)

    assert ran.code == 3
    assert "error: Postgres at postgresql://someone:[redacted]@127.0.0.1:1/nothing" in ran.err
    assert "for servers on this machine: taskyard up" in ran.err
    assert "hunter2" not in ran.err


def test_an_unknown_job_type_is_told_with_the_nearest_one(shell: Shell) -> None:
    ran = shell.run("jobs", "enqueue", "plan_generatoin", "{}")

    assert ran.code == 2
    assert "there is no job type 'plan_generatoin'. Did you mean 'plan_generation'?" in ran.err
    assert ran.err.endswith("See: taskyard types list\n")


def test_an_unknown_queue_is_told_with_the_known_ones(shell: Shell) -> None:
    ran = shell.run("jobs", "enqueue", "batch_locator_generation", BUTTON, "--queue", "locators")

    assert ran.code == 2
    assert "there is no queue 'locators'. Known: exec, locator, ops, plan." in ran.err
    assert ran.err.endswith("See: taskyard env\n")


def test_an_unknown_pool_is_told_before_any_server_is_needed(bare_shell: Shell) -> None:
    ran = bare_shell.run("worker", "--pool", "execs")

    assert ran.code == 2
    assert "there is no queue 'execs'. Known: exec, locator, ops, plan." in ran.err


def test_an_unknown_priority_is_told_with_the_range(shell: Shell) -> None:
    ran = shell.run("jobs", "enqueue", "batch_locator_generation", BUTTON, "--priority", "5")

    assert ran.code == 2
    assert ran.err == (
        "error: queue 'locator' has priorities 1 to 3 (3 is the most urgent), got 5. "
        "See: taskyard env\n"
    )


def test_a_payload_that_does_not_fit_names_field_and_value(shell: Shell) -> None:
    ran = shell.run("jobs", "enqueue", "batch_locator_generation", '{"html": 7}')

    assert ran.code == 2
    assert "the payload does not fit job type 'batch_locator_generation':\n  html: " in ran.err
    assert "got: '7'" in ran.err
    assert ran.err.endswith("See: taskyard jobs enqueue --help\n")


def test_a_kill_switch_is_told_with_its_reason_and_when_to_try_again(shell: Shell) -> None:
    settings = load(shell.variables, shell.folder).settings
    field = SwitchField.kill("type:batch_locator_generation")
    with connect(settings.need_redis_url()) as client:
        turn_on(client, settings.namespace, field)
    ran = shell.run("jobs", "enqueue", "batch_locator_generation", BUTTON)

    assert ran.code == 5
    assert ran.out == ""
    assert ran.err.startswith(
        "error: the job is not enqueued: the kill switch on type:batch_locator_generation is on "
    )
    assert f"reason: {REASON}. Enqueue it again in 30 s" in ran.err
    assert ran.err.endswith("See: taskyard switches list\n")
    ran = shell.run("jobs", "enqueue", "batch_locator_generation", BUTTON, "--json")
    assert (ran.code, ran.document["error"]["kind"]) == (5, "KillSwitchOn")


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        ("{html: 1}", "the payload is not JSON: Expecting property name"),
        ("@absent.json", "the payload cannot be read: [Errno 2] No such file"),
        ("-", "standard input is not JSON: Expecting value"),
    ],
)
def test_a_payload_that_is_no_json_is_told_with_an_example(
    shell: Shell, payload: str, sentence: str
) -> None:
    ran = shell.run("jobs", "enqueue", "batch_locator_generation", payload)

    assert ran.code == 2
    assert f"error: {sentence}" in ran.err
    assert ran.err.endswith("See: taskyard jobs enqueue --help\n")


def test_a_broken_policy_file_is_told_by_name(shell: Shell) -> None:
    broken = shell.folder / "types.yaml"
    broken.write_text("job_retry_policies:\n  plan_generation:\n    max_retries: many\n")

    ran = shell.run("worker", "--pool", "plan", TASKYARD_JOB_TYPES=str(broken))

    assert ran.code == 2
    assert "error: job type 'plan_generation': policy.max_retries: " in ran.err
    assert "got: 'many'" in ran.err


def test_a_misspelled_setting_is_told_with_the_right_one(bare_shell: Shell) -> None:
    ran = bare_shell.run("env", TASKYARD_REDI_URL="redis://127.0.0.1/0")

    assert ran.code == 2
    assert ran.err == (
        "error: TASKYARD_REDI_URL: unknown setting 'redi_url'; did you mean 'redis_url'? "
        "See: taskyard check\n"
    )


def test_a_misspelled_command_is_told_with_the_right_one(bare_shell: Shell) -> None:
    ran = bare_shell.run("job", "list")

    assert ran.code == 2
    assert ran.err == "error: No such command 'job': did you mean 'jobs'? See: taskyard --help\n"


def test_a_misspelled_option_names_the_commands_help(bare_shell: Shell) -> None:
    ran = bare_shell.run("jobs", "list", "--stat", "failed")

    assert ran.code == 2
    assert ran.err.startswith("error: No such option: --stat")
    assert ran.err.endswith("See: taskyard jobs list --help\n")


def test_an_unknown_job_id_names_the_list(shell: Shell) -> None:
    ran = shell.run("jobs", "show", "0123456789")

    assert ran.code == 4
    assert ran.err == "error: there is no job '0123456789'. See: taskyard jobs list\n"


@pytest.mark.parametrize("verb", ["show", "wait"])
def test_without_the_ledger_an_unknown_job_is_an_outage_and_no_absent_job(
    shell: Shell, verb: str
) -> None:
    ran = shell.run("jobs", verb, "0123456789", TASKYARD_DATABASE_URL=NO_DATABASE)

    assert ran.code == 3
    assert ran.err.startswith("error: Postgres at postgresql://someone:[redacted]@127.0.0.1:1/")
    assert "there is no job" not in ran.err


def test_without_the_ledgers_url_an_unknown_job_names_the_variable(shell: Shell) -> None:
    del shell.variables["TASKYARD_DATABASE_URL"]

    ran = shell.run("jobs", "show", "0123456789")

    assert ran.code == 2
    assert ran.err.startswith("error: TASKYARD_DATABASE_URL is not set: ")


def test_without_the_ledger_a_job_that_redis_knows_is_shown(shell: Shell) -> None:
    settings = load(shell.variables, shell.folder).settings
    with connect(settings.need_redis_url()) as client:
        Records(client, settings).admit(
            "lonely-job", job_type="any", queue="ops", priority=3, unique_for_s=0
        )

    ran = shell.run("jobs", "show", "lonely", TASKYARD_DATABASE_URL=NO_DATABASE)

    assert ran.code == 0
    assert "job       lonely-job\n" in ran.out
    assert "ledger    unknown (Postgres at postgresql://someone:[redacted]@127.0.0.1:1/" in ran.out


def test_a_beginning_that_is_too_short_is_told_with_the_length(shell: Shell) -> None:
    ran = shell.run("jobs", "show", "0123")

    assert ran.code == 4
    assert "expected the whole id or at least 6 of its first characters" in ran.err


def test_an_ambiguous_beginning_lists_the_candidates(shell: Shell) -> None:
    settings = load(shell.variables, shell.folder).settings
    with connect(settings.need_redis_url()) as client:
        for number in (1, 2):
            Records(client, settings).admit(
                f"nightly-{number}", job_type="any", queue="ops", priority=3, unique_for_s=0
            )

    ran = shell.run("jobs", "show", "nightly")

    assert ran.code == 5
    assert ran.err == (
        "error: 'nightly' is ambiguous: nightly-1, nightly-2. Give more characters. "
        "See: taskyard jobs list\n"
    )


def test_an_unknown_letter_names_the_list(shell: Shell) -> None:
    ran = shell.run("dlq", "show", "0123456789")

    assert ran.code == 4
    assert ran.err == "error: there is no dead letter '0123456789'. See: taskyard dlq list\n"


def test_a_replay_without_an_identity_says_how_to_get_one(shell: Shell) -> None:
    ran = shell.run("dlq", "replay", "0123456789", "--reason", "The shop is back, ticket 7")

    assert ran.code == 6
    assert "error: there is no verified identity." in ran.err
    assert "TASKYARD_TRUST_LOCAL=1" in ran.err
    assert ran.err.endswith('run: eval "$(taskyard env --export)"\n')


def test_a_reason_that_says_nothing_is_refused_with_a_good_one(shell: Shell) -> None:
    ran = shell.run("dlq", "replay", "0123456789", "--reason", "fix it", TASKYARD_TRUST_LOCAL="1")

    assert ran.code == 2
    assert "the reason 'fix it' is too short or too general" in ran.err
    assert 'for example: "Infrastructure recovered' in ran.err
    assert ran.err.endswith("See: taskyard dlq replay --help\n")


@pytest.mark.parametrize("words", [("dlq", "replay", "0123456789"), ("reconcile", "--accept")])
@pytest.mark.parametrize("mode", ["compatible", "strict"])
def test_the_command_line_always_wants_a_reason(
    shell: Shell, words: tuple[str, ...], mode: str
) -> None:
    ran = shell.run(*words, TASKYARD_TRUST_LOCAL="1", TASKYARD_REQUIRE_REASON=mode)

    assert ran.code == 2
    assert 'a reason is required, for example: "Infrastructure recovered' in ran.err


def test_a_broker_that_does_not_answer_is_told_by_its_own_variable(shell: Shell) -> None:
    ran = shell.run("reconcile", TASKYARD_BROKER_URL=NOWHERE)

    assert ran.code == 3
    assert "error: Redis at redis://:[redacted]@127.0.0.1:1/0 does not answer (" in ran.err
    assert "correct TASKYARD_BROKER_URL" in ran.err
    assert "TASKYARD_REDIS_URL" not in ran.err


def test_records_that_do_not_answer_are_told_by_their_own_variable(shell: Shell) -> None:
    ran = shell.run("reconcile", TASKYARD_REDIS_URL=NOWHERE)

    assert ran.code == 3
    assert "correct TASKYARD_REDIS_URL" in ran.err


def test_more_letters_than_a_person_can_judge_are_refused(shell: Shell) -> None:
    ids = "\n".join(str(uuid.uuid4()) for _ in range(101))

    ran = shell.run("dlq", "replay", "-", "--reason", "The shop is back", stdin=ids)

    assert ran.code == 2
    assert "expected at most 100 letters at once, got 101" in ran.err


def test_no_ids_on_standard_input_are_told(shell: Shell) -> None:
    ran = shell.run("jobs", "show", "-", stdin="\n\n")

    assert ran.code == 2
    assert (
        "no id was given; expected ids, or - to read one id per line from standard input."
        in ran.err
    )


def test_a_bad_time_is_told_with_good_ones(shell: Shell) -> None:
    ran = shell.run("dlq", "list", "--since", "yesterday")

    assert ran.code == 2
    assert ran.err == (
        "error: Invalid value for --since: expected a duration such as 2h or a time such as "
        "2025-06-01T08:00, got 'yesterday'. See: taskyard dlq list --help\n"
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("jobs list --limit 5000", "for '--limit': expected 1 to 1000, got 5000."),
        ("dlq list --limit 0", "for '--limit': expected 1 to 1000, got 0."),
        ("jobs list --limit x", "for '--limit': expected a valid integer."),
        ("jobs wait 123456 --timeout nan", "for '--timeout': expected 0 seconds or more, got nan."),
        ("jobs wait 123456 --timeout -1", "for '--timeout': expected 0 seconds or more, got -1."),
        ("jobs enqueue plan_generation {} --countdown soon", "for '--countdown': expected a valid"),
        ("jobs list --since 2x", "for --since: expected a duration such as 90s, 15m"),
        (
            "migrate --check --to 0001",
            "for --check: it compares with the newest schema and cannot be combined with --to.",
        ),
        ("jobs list --state asleep", "for '--state': 'asleep' is not one of"),
        ("dlq list --category odd", "for '--category': 'odd' is not one of"),
    ],
)
def test_wrong_words_have_one_exit_code_and_name_the_help(
    shell: Shell, words: str, sentence: str
) -> None:
    ran = shell.run(*words.split())

    assert (ran.code, ran.out) == (2, "")
    assert f"error: Invalid value {sentence}" in ran.err
    assert ran.err.endswith(" --help\n")


def test_with_json_a_refusal_is_a_document_too(shell: Shell) -> None:
    ran = shell.run("jobs", "show", "0123456789", "--json")

    assert ran.code == 4
    assert ran.document == {
        "error": {
            "kind": "NotFound",
            "message": "there is no job '0123456789'. See: taskyard jobs list",
            "exit_code": 4,
        }
    }


def test_an_export_without_a_running_stack_names_the_command_that_starts_it(
    bare_shell: Shell,
) -> None:
    ran = bare_shell.run("env", "--export")

    assert ran.code == 3
    assert ran.err.endswith("Start them with: taskyard up\n")
