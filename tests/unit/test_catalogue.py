"""The catalogue: what a job type file may say, and what it hears when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskyard.errors import InvalidPayload, InvalidSettings, UnknownJobType
from taskyard.jobs.catalogue import Catalogue
from taskyard.jobs.types import JobType
from taskyard.settings import Settings


def write(folder: Path, text: str, name: str = "types.yaml") -> Path:
    file = folder / name
    file.write_text(text, "utf-8")
    return file


def refused(folder: Path, text: str) -> str:
    with pytest.raises(InvalidSettings) as refusal:
        Catalogue.load(write(folder, text), built_in=True)
    return str(refusal.value)


def test_the_built_in_types_have_their_queues_and_promises() -> None:
    catalogue = Catalogue.load(built_in=True)
    assert {name: catalogue[name].queue for name in catalogue} == {
        "plan_generation": "plan",
        "test_execution": "exec",
        "batch_locator_generation": "locator",
        "element_healing": "locator",
    }
    assert catalogue["plan_generation"].sla_s == 12
    assert catalogue["batch_locator_generation"].sla_s == 4
    shed = [name for name in catalogue if catalogue[name].shed_class is not None]
    assert shed == ["batch_locator_generation"]


def test_a_file_overrides_field_by_field_in_policies_too(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "job_types: {plan_generation: {owner: others}}\n"
        "job_retry_policies: {test_execution: {max_retries: 9}}\n",
    )
    catalogue = Catalogue.load(file, built_in=True)
    assert catalogue["plan_generation"].owner == "others"
    assert catalogue["plan_generation"].queue == "plan"
    assert (
        catalogue["plan_generation"].policy
        == Catalogue.load(built_in=True)["plan_generation"].policy
    )
    assert catalogue["test_execution"].policy.max_retries == 9
    assert catalogue["test_execution"].policy.retry_on_errors == (
        "browser_crash",
        "network_timeout",
    )


def test_a_later_file_wins_over_an_earlier_one(tmp_path: Path) -> None:
    first = write(tmp_path, "job_types: {new: {queue: plan, owner: first}}", "first.yaml")
    second = write(tmp_path, "job_types: {new: {owner: second}}", "second.yaml")
    found = Catalogue.load(first, second)["new"]
    assert (found.queue, found.owner) == ("plan", "second")


@pytest.mark.parametrize("text", ["", "# nothing\n", "job_types:\n", "job_types: {}\n"])
def test_an_empty_file_or_section_changes_nothing(tmp_path: Path, text: str) -> None:
    given = Catalogue.load(write(tmp_path, text), built_in=True)
    assert dict(given) == dict(Catalogue.load(built_in=True))


def test_without_being_asked_for_no_built_in_type_is_known(tmp_path: Path) -> None:
    assert list(Catalogue.of(Settings())) == []
    file = write(tmp_path, "job_types: {new: {queue: mail}}")
    assert list(Catalogue.of(Settings(job_types=(file,)))) == ["new"]
    assert "plan_generation" in Catalogue.of(Settings(builtin_jobs=True, job_types=(file,)))


def test_broken_yaml_is_refused_with_its_place(tmp_path: Path) -> None:
    text = refused(tmp_path, "job_types: {plan: [")
    assert "types.yaml is not valid YAML: " in text
    assert "line 1" in text


def test_yaml_that_builds_objects_is_refused(tmp_path: Path) -> None:
    text = refused(tmp_path, "job_types: !!python/object/apply:os.getcwd []")
    assert "is not valid YAML: could not determine a constructor" in text


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    text = refused(tmp_path, "- plan_generation")
    assert text.endswith("expected the sections ('job_types', 'job_retry_policies'), got list")


def test_an_unknown_section_is_refused_with_the_nearest(tmp_path: Path) -> None:
    text = refused(tmp_path, "job_retry_policy: {}")
    assert "unknown section 'job_retry_policy'; did you mean 'job_retry_policies'?" in text


def test_an_unknown_section_far_from_any_lists_the_known(tmp_path: Path) -> None:
    text = refused(tmp_path, "zzz: {}")
    assert text.endswith("unknown section 'zzz'; known: ('job_types', 'job_retry_policies')")


def test_a_section_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, "job_types: [plan]").endswith(
        "job_types must map names to settings, got list"
    )


def test_a_type_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, "job_types: {plan: 3}").endswith(
        "job_types.plan must be a mapping, got 3"
    )


def test_an_unknown_field_is_refused_with_the_nearest(tmp_path: Path) -> None:
    text = refused(tmp_path, "job_types: {new: {queue: plan, time_limit: 3}}")
    assert text.startswith("job type 'new': time_limit: Extra inputs are not permitted, got: 3.")
    assert text.endswith("Did you mean 'time_limit_s'?")


def test_an_unknown_policy_field_is_refused_with_the_nearest(tmp_path: Path) -> None:
    text = refused(tmp_path, "job_retry_policies: {plan_generation: {max_retry: 3}}")
    assert text.startswith("job type 'plan_generation': policy.max_retry: Extra inputs")
    assert text.endswith("Did you mean 'max_retries'?")


def test_a_value_out_of_range_is_refused_with_field_and_value(tmp_path: Path) -> None:
    text = refused(tmp_path, "job_retry_policies: {plan_generation: {max_retries: -1}}")
    words = "policy.max_retries: Input should be greater than or equal to 0, got: -1."
    assert text == f"job type 'plan_generation': {words}"


def test_a_policy_for_a_type_without_a_queue_is_refused(tmp_path: Path) -> None:
    text = refused(tmp_path, "job_retry_policies: {nobody: {max_retries: 1}}")
    assert text.startswith("job type 'nobody': queue: Field required")


def test_an_unknown_name_with_a_dot_may_be_a_task_of_an_app() -> None:
    with pytest.raises(UnknownJobType) as refusal:
        Catalogue.load()["shop.legacy.charge"]
    assert str(refusal.value).endswith(
        "If it is a task of an existing Celery app, it is no job type: its retries and limits "
        "stand in its @app.task, and the app itself enqueues it (delay, apply_async). See: "
        "taskyard check MODULE:APP"
    )
    with pytest.raises(UnknownJobType) as refusal:
        Catalogue.load()["charge"]
    assert "existing Celery app" not in str(refusal.value)


def test_a_missing_file_is_refused_with_the_variable(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=r"cannot be read \(.*\); see TASKYARD_JOB_TYPES$"):
        Catalogue.load(tmp_path / "absent.yaml")


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "types.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidSettings, match=r"types.yaml cannot be read"):
        Catalogue.load(file)


def test_an_unknown_type_is_answered_with_the_nearest_and_the_known() -> None:
    with pytest.raises(UnknownJobType) as refusal:
        Catalogue.load(built_in=True)["plan_generatoin"]
    text = str(refusal.value)
    assert text.startswith("there is no job type 'plan_generatoin'. Did you mean 'plan_generation'")
    assert text.endswith(
        "or define it in a file that TASKYARD_JOB_TYPES names; the built-in types need "
        "TASKYARD_BUILTIN_JOBS=1."
    )


def test_asking_whether_a_type_exists_does_not_raise() -> None:
    catalogue = Catalogue.load(built_in=True)
    assert "plan_generation" in catalogue
    assert "nothing" not in catalogue


def test_a_copy_with_a_type_leaves_the_original_alone() -> None:
    catalogue = Catalogue.load(built_in=True)
    more = catalogue.with_type(JobType(name="new", queue="plan"))
    assert "new" in more
    assert "new" not in catalogue
    assert len(more) == len(catalogue) + 1


def test_a_payload_model_that_cannot_be_imported_is_named() -> None:
    absent = JobType(name="new", queue="plan", payload_model="no.such.module:Model")
    with pytest.raises(InvalidSettings, match=r"'no.such.module:Model' cannot be imported"):
        absent.model()
    wrong = JobType(name="new", queue="plan", payload_model="taskyard.jobs.types:DEFAULT_POLICY")
    with pytest.raises(InvalidSettings, match=r"is not a pydantic model"):
        wrong.model()


def test_a_payload_that_does_not_fit_is_refused_with_field_and_value() -> None:
    policy = JobType(
        name="new", queue="plan", payload_model="taskyard.jobs.retry_policy:RetryPolicy"
    )
    policy.check_payload({"max_retries": 1})
    with pytest.raises(InvalidPayload) as refusal:
        policy.check_payload({"max_retries": "many"})
    lines = str(refusal.value).splitlines()
    assert lines[0] == "the payload does not fit job type 'new':"
    assert lines[1].startswith("  max_retries: Input should be a valid integer")
    assert lines[1].endswith("got: 'many'")


def test_without_a_model_every_payload_fits() -> None:
    JobType(name="new", queue="plan").check_payload(object())


def test_a_file_that_raises_one_number_keeps_the_rest_of_the_policy(tmp_path):
    file = tmp_path / "types.yaml"
    file.write_text("job_retry_policies: {plan_generation: {max_retries: 5}}")
    before = Catalogue.load(built_in=True)["plan_generation"].policy
    after = Catalogue.load(file, built_in=True)["plan_generation"].policy
    assert after == before.model_copy(update={"max_retries": 5})
