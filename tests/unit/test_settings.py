"""Settings: where each comes from, which wins, and what a wrong one hears."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from taskyard.errors import InvalidSettings, MissingSetting, UnknownPriority, UnknownQueue
from taskyard.settings import QueueSettings, Settings, load

SECRET = "hunter2"  # noqa: S105 - it must never be shown


def write(folder: Path, text: str) -> Path:
    file = folder / "taskyard.toml"
    file.write_text(text, "utf-8")
    return file


def refused(folder: Path, **environ: str) -> str:
    with pytest.raises(InvalidSettings) as refusal:
        load(environ, folder)
    return str(refusal.value)


def test_without_file_and_variables_everything_is_the_default(tmp_path: Path) -> None:
    loaded = load({}, tmp_path)
    assert loaded.settings == Settings()
    assert set(loaded.origins) == set(Settings.model_fields)
    assert set(loaded.origins.values()) == {"default"}


def test_a_variable_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    file = write(tmp_path, "lease_s = 40\ndeath_limit = 5\n")
    loaded = load({"TASKYARD_LEASE_S": "50"}, tmp_path)
    assert (loaded.settings.lease_s, loaded.settings.death_limit) == (50, 5)
    assert loaded.settings.delivery_limit == 10
    assert loaded.origins["lease_s"] == "TASKYARD_LEASE_S"
    assert loaded.origins["death_limit"] == str(file)
    assert loaded.origins["delivery_limit"] == "default"


def test_an_empty_variable_counts_as_unset_but_zero_does_not(tmp_path: Path) -> None:
    write(tmp_path, "trust_local = true\n")
    assert load({"TASKYARD_TRUST_LOCAL": ""}, tmp_path).settings.trust_local is True
    assert load({"TASKYARD_TRUST_LOCAL": "0"}, tmp_path).settings.trust_local is False


def test_a_named_file_is_read_instead_of_the_one_in_the_folder(tmp_path: Path) -> None:
    write(tmp_path, "lease_s = 40\n")
    named = tmp_path / "other.toml"
    named.write_text("lease_s = 41\n")
    loaded = load({"TASKYARD_CONFIG": str(named)}, tmp_path)
    assert loaded.settings.lease_s == 41
    assert loaded.origins["lease_s"] == str(named)


def test_a_named_file_that_is_absent_is_refused(tmp_path: Path) -> None:
    text = refused(tmp_path, TASKYARD_CONFIG=str(tmp_path / "absent.toml"))
    assert text.startswith(f"{tmp_path / 'absent.toml'} cannot be read: ")


def test_a_broken_file_is_refused_with_its_place(tmp_path: Path) -> None:
    file = write(tmp_path, "lease_s = = 40\n")
    text = refused(tmp_path)
    assert text.startswith(f"{file} cannot be read: ")
    assert "line 1" in text


def test_an_unknown_key_is_refused_with_source_and_the_nearest(tmp_path: Path) -> None:
    words = "TASKYARD_LEAS_S: unknown setting 'leas_s'; did you mean 'lease_s'?"
    assert refused(tmp_path, TASKYARD_LEAS_S="4") == words
    file = write(tmp_path, "redis_ulr = 'redis://h'\n")
    assert refused(tmp_path) == f"{file}: unknown setting 'redis_ulr'; did you mean 'redis_url'?"


def test_an_unknown_key_far_from_any_is_sent_to_the_docs(tmp_path: Path) -> None:
    text = refused(tmp_path, TASKYARD_QQQQ="4")
    assert text == "TASKYARD_QQQQ: unknown setting 'qqqq'; see docs/settings.md"


def test_other_programs_variables_are_ignored(tmp_path: Path) -> None:
    assert load({"LEASE_S": "4", "PATH": "/bin"}, tmp_path).settings == Settings()


def test_a_wrong_value_is_refused_with_field_source_and_value(tmp_path: Path) -> None:
    text = refused(tmp_path, TASKYARD_LEASE_S="0")
    words = "Input should be greater than or equal to 1, got: '0'"
    assert text == f"lease_s (from TASKYARD_LEASE_S): {words}"


def test_several_faults_are_told_at_once(tmp_path: Path) -> None:
    text = refused(tmp_path, TASKYARD_LEASE_S="x", TASKYARD_DEATH_LIMIT="0")
    assert len(text.splitlines()) == 2


def test_the_window_must_exceed_twice_the_visibility_timeout(tmp_path: Path) -> None:
    text = refused(tmp_path, TASKYARD_DEDUPE_WINDOW_S="1200", TASKYARD_VISIBILITY_TIMEOUT_S="600")
    assert "dedupe_window_s (1200) must exceed twice visibility_timeout_s (600)" in text
    assert text.endswith("Set it above 1200")
    enough = {"TASKYARD_DEDUPE_WINDOW_S": "1201", "TASKYARD_VISIBILITY_TIMEOUT_S": "600"}
    assert load(enough, tmp_path).settings.dedupe_window_s == 1201


@pytest.mark.parametrize("field", ["BROKER_URL", "REDIS_URL", "DATABASE_URL"])
@pytest.mark.parametrize("url", [SECRET, f"user:{SECRET}@host"])
def test_a_url_never_stands_in_an_error(tmp_path: Path, field: str, url: str) -> None:
    text = refused(tmp_path, **{f"TASKYARD_{field}": url, "TASKYARD_LEASE_S": "x"})
    assert f"{field.lower()} (from TASKYARD_{field}): expected a URL such as" in text
    assert SECRET not in text


def test_a_good_url_stands_in_no_error_about_something_else(tmp_path: Path) -> None:
    text = refused(
        tmp_path,
        TASKYARD_REDIS_URL=f"redis://:{SECRET}@host/0",
        TASKYARD_VISIBILITY_TIMEOUT_S="99999",
    )
    assert SECRET not in text


def test_job_type_files_are_separated_as_in_a_path(tmp_path: Path) -> None:
    loaded = load({"TASKYARD_JOB_TYPES": "one.yaml:two.yaml"}, tmp_path)
    assert loaded.settings.job_types == (Path("one.yaml"), Path("two.yaml"))
    write(tmp_path, "job_types = 'one.yaml'\n")
    assert load({}, tmp_path).settings.job_types == (Path("one.yaml"),)


def test_queues_of_ones_own_replace_all_but_ops(tmp_path: Path) -> None:
    assert set(load({}, tmp_path).settings.queues) == {"plan", "exec", "locator", "ops"}
    write(tmp_path, "[queues.mail]\npriorities = 2\n")
    assert set(load({}, tmp_path).settings.queues) == {"ops", "mail"}
    with_built_in = load({"TASKYARD_BUILTIN_JOBS": "1"}, tmp_path).settings
    assert set(with_built_in.queues) == {"plan", "exec", "locator", "ops", "mail"}
    given_as_json = json.dumps({"plan": {"sla_s": 3}})
    queues = load({"TASKYARD_QUEUES": given_as_json}, tmp_path).settings.queues
    assert queues["plan"] == QueueSettings(sla_s=3)


def test_queues_that_are_no_json_are_refused(tmp_path: Path) -> None:
    text = refused(tmp_path, TASKYARD_QUEUES="plan,exec")
    assert text.startswith("TASKYARD_QUEUES must be JSON such as {...}: ")


def test_a_wrong_field_of_a_queue_is_named(tmp_path: Path) -> None:
    write(tmp_path, "[queues.mail]\npriority = 2\n")
    text = refused(tmp_path)
    assert text.startswith("queues.mail.priority (from ")
    assert text.endswith("Extra inputs are not permitted, got: 2")


@pytest.mark.parametrize("field", ["broker_url", "redis_url", "database_url"])
def test_a_missing_url_is_named_with_its_purpose_and_the_remedy(field: str) -> None:
    with pytest.raises(MissingSetting) as refusal:
        getattr(Settings(), f"need_{field}")()
    assert refusal.value.variable == f"TASKYARD_{field.upper()}"
    assert str(refusal.value).startswith(f"TASKYARD_{field.upper()} is not set: it names the ")
    assert str(refusal.value).endswith("start everything on this machine with: taskyard up")


def test_a_present_url_is_handed_out() -> None:
    assert Settings(redis_url="redis://h/0").need_redis_url() == "redis://h/0"


def test_a_default_queue_that_own_queues_replaced_is_named_with_the_reason() -> None:
    settings = Settings(queues={"billing": QueueSettings()})
    with pytest.raises(UnknownQueue) as refusal:
        settings.queue("exec")
    assert str(refusal.value).startswith(
        "there is no queue 'exec'. Known: billing, ops. Queues of your own replace the default "
        "ones, exec among them. Add one under [queues] in taskyard.toml"
    )
    with pytest.raises(UnknownQueue) as refusal:
        settings.queue("mail")
    assert "replace" not in str(refusal.value)


def test_an_unknown_queue_is_answered_with_the_known() -> None:
    words = r"there is no queue 'mail'. Known: exec, locator, ops, plan."
    with pytest.raises(UnknownQueue, match=words):
        Settings().queue("mail")


@given(st.integers(-3, 10) | st.booleans() | st.none() | st.text() | st.floats())
def test_a_priority_is_a_whole_number_that_the_queue_has(priority: object) -> None:
    settings = Settings()
    if type(priority) is int and 1 <= priority <= 3:
        assert settings.check_priority("locator", priority) == priority
        return
    with pytest.raises(UnknownPriority) as refusal:
        settings.check_priority("locator", priority)
    words = "queue 'locator' has priorities 1 to 3 (3 is the most urgent)"
    assert str(refusal.value) == f"{words}, got {priority!r}"


@pytest.mark.parametrize(("top", "middle"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_the_default_priority_is_the_middle_one(top: int, middle: int) -> None:
    assert QueueSettings(priorities=top).default_priority == middle


def test_a_queue_is_bare_in_the_default_namespace_and_prefixed_in_another() -> None:
    assert Settings().broker_name("plan") == "plan"
    assert Settings(namespace="cell-2").broker_name("plan") == "cell-2.plan"


@pytest.mark.parametrize("namespace", ["", "2cells", "a b", "a.b", "a:b", "x" * 64])
def test_a_namespace_that_would_break_a_key_is_refused(namespace: str) -> None:
    with pytest.raises(ValidationError, match="namespace"):
        Settings(namespace=namespace)


def test_settings_cannot_be_changed_once_made() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().lease_s = 3


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"AUDIT_RETENTION_DAYS": "29"}, "audit_retention_days (29) must be 0, which keeps"),
        ({"AUDIT_RETENTION_DAYS": "30"}, "audit_retention_days (30) needs audit_archive_folder"),
        (
            {
                "AUDIT_RETENTION_DAYS": "90",
                "AUDIT_ARCHIVE_FOLDER": "archives",
                "AUDIT_ARCHIVE_RETENTION_DAYS": "90",
            },
            "audit_archive_retention_days (90) must exceed audit_retention_days (90)",
        ),
    ],
)
def test_the_audit_log_leaves_postgres_only_late_and_for_an_archive(
    tmp_path: Path, variables: dict[str, str], said: str
) -> None:
    assert said in refused(
        tmp_path, **{f"TASKYARD_{name}": value for name, value in variables.items()}
    )


def test_the_audit_log_stays_in_postgres_by_default(tmp_path: Path) -> None:
    assert load({}, tmp_path).settings.audit_retention_days == 0
