"""Handlers: what a signature says, and which signatures are refused."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import FunctionType

import pytest
from pydantic import BaseModel

from taskyard.errors import DuplicateName, InvalidPayload, InvalidSettings
from taskyard.jobs.attempt_context import JobContext
from taskyard.jobs.catalogue import Catalogue
from taskyard.jobs.handler_registry import ENTRY_POINTS, Registry
from taskyard.jobs.retry_policy import RetryPolicy


class Payload(BaseModel):
    number: int


def plain(payload: dict[str, int]) -> None: ...


def with_context(payload: Payload, context: JobContext) -> None: ...


async def awaited(payload: Payload) -> None: ...


def nothing() -> None: ...


def three(payload: Payload, context: JobContext, more: int) -> None: ...


def with_keyword(payload: Payload, *, mode: str = "x") -> None: ...


def line_of(function: FunctionType) -> int:
    return function.__code__.co_firstlineno


def test_a_signature_says_model_context_and_kind() -> None:
    registry = Registry()
    for function in (plain, with_context, awaited, with_keyword):
        assert registry.job(function.__name__)(function) is function
    found = {
        handler.name: (handler.payload_model, handler.wants_context, handler.is_async)
        for handler in registry.handlers()
    }
    assert found == {
        "plain": (None, False, False),
        "with_context": (Payload, True, False),
        "awaited": (Payload, False, True),
        "with_keyword": (Payload, False, False),
    }


def test_settings_in_the_decorator_define_the_type() -> None:
    registry = Registry()
    registry.job("new", queue="exec", policy={"max_retries": 7})(plain)
    job_type = registry["new"].job_type
    assert job_type is not None
    assert (job_type.name, job_type.queue, job_type.policy.max_retries) == ("new", "exec", 7)


def test_without_settings_the_catalogue_must_know_the_type() -> None:
    registry = Registry()
    registry.job("new")(plain)
    assert registry["new"].job_type is None


def test_a_wrong_setting_in_the_decorator_is_refused() -> None:
    words = r"job type 'new': queueue: .* Did you mean 'queue'\?"
    with pytest.raises(InvalidSettings, match=words):
        Registry().job("new", queue="exec", queueue="exec")(plain)


def test_a_wrong_setting_is_told_with_its_place_in_the_code() -> None:
    with pytest.raises(InvalidSettings, match=rf"^{__file__}:{line_of(plain)}: job type 'new': "):
        Registry().job("new", time_limit_s=-1)(plain)


def test_a_decorator_needs_no_queue_where_a_file_defines_the_type(tmp_path: Path) -> None:
    file = tmp_path / "types.yaml"
    file.write_text("job_types: {new: {queue: plan}}")
    registry = Registry()
    registry.job("new", policy={"max_retries": 9})(plain)
    assert registry.under(Catalogue.load(file))["new"].queue == "plan"


def test_a_decorator_whose_queue_nothing_gives_is_told_with_its_place_in_the_code() -> None:
    registry = Registry()
    registry.job("new", policy={"max_retries": 9})(plain)
    with pytest.raises(InvalidSettings) as refusal:
        registry.under(Catalogue.load())
    assert str(refusal.value) == (
        f"{__file__}:{line_of(plain)}: job type 'new' has settings and no queue. Give its "
        'decorator one (queue="exec"), or define the type in a file that TASKYARD_JOB_TYPES names'
    )


def test_what_only_a_decorator_defines_is_laid_under_the_catalogue() -> None:
    registry = Registry()
    registry.job("new", queue="exec", policy={"max_retries": 9})(plain)
    registry.job("plan_generation", queue="ops")(plain)
    merged = registry.under(Catalogue.load(built_in=True))
    assert merged["new"].policy.max_retries == 9
    assert merged["plan_generation"].queue == "plan", "the file wins"


def test_a_field_that_a_file_does_not_have_stays_the_decorators(tmp_path: Path) -> None:
    file = tmp_path / "types.yaml"
    file.write_text(
        "job_types: {new: {queue: plan, owner: null}}\n"
        "job_retry_policies: {new: {max_retries: 5}}\n"
    )
    registry = Registry()
    policy = {"max_retries": 2, "no_retry_errors": ["no_customer"]}
    registry.job("new", queue="exec", time_limit_s=30, owner="me", policy=policy)(plain)

    merged = registry.under(Catalogue.load(file))["new"]

    assert (merged.queue, merged.time_limit_s, merged.owner) == ("plan", 30, None)
    assert merged.policy == RetryPolicy(max_retries=5, no_retry_errors=("no_customer",))


def test_a_decorators_policy_stays_where_a_file_has_none(tmp_path: Path) -> None:
    file = tmp_path / "types.yaml"
    file.write_text("job_types: {new: {queue: plan}}")
    registry = Registry()
    registry.job("new", policy=RetryPolicy(max_retries=9))(plain)
    assert registry.under(Catalogue.load(file))["new"].policy.max_retries == 9


def test_fields_that_are_valid_only_alone_are_refused_with_both_places(tmp_path: Path) -> None:
    file = tmp_path / "types.yaml"
    file.write_text(
        "job_types: {new: {queue: plan}}\njob_retry_policies: {new: {retry_on_errors: [a]}}"
    )
    registry = Registry()
    registry.job("new", queue="exec", policy={"no_retry_errors": ["a"]})(plain)
    with pytest.raises(InvalidSettings) as refusal:
        registry.under(Catalogue.load(file))
    assert f"{__file__}:{line_of(plain)}: job type 'new': policy: " in str(refusal.value)
    assert str(refusal.value).endswith(
        "The decorator sets policy, queue; the job type file sets policy, queue, and its value "
        "counts where both set one. Correct the field where it is set"
    )


def test_a_payload_must_fit_the_annotation_of_a_handler_that_is_registered() -> None:
    registry = Registry()
    registry.job("new", queue="exec")(with_context)
    registry.job("raw", queue="exec")(plain)
    types = registry.under(Catalogue.load())
    types["new"].check_payload({"number": 1})
    types["raw"].check_payload("anything")
    with pytest.raises(InvalidPayload, match=r"does not fit job type 'new':\n  number: "):
        types["new"].check_payload({"number": "many"})


def test_a_payload_must_fit_the_files_model_and_the_annotation(tmp_path: Path) -> None:
    file = tmp_path / "types.yaml"
    model = "taskyard.jobs.retry_policy:RetryPolicy"
    file.write_text(f"job_types: {{new: {{queue: plan, payload_model: '{model}'}}}}")
    registry = Registry()
    registry.job("new")(with_context)
    job_type = registry.under(Catalogue.load(file))["new"]
    with pytest.raises(InvalidPayload, match=r"\n  number: Extra inputs"):
        job_type.check_payload({"number": 1})
    with pytest.raises(InvalidPayload, match=r"\n  number: this required field is missing"):
        job_type.check_payload({"max_retries": 1})


@pytest.mark.parametrize(("function", "count"), [(nothing, 0), (three, 3)])
def test_another_number_of_parameters_is_refused(function: object, count: int) -> None:
    words = rf"must take \(payload\) or \(payload, context\), got {count} parameters$"
    with pytest.raises(InvalidSettings, match=words):
        Registry().job("new")(function)  # type: ignore[type-var]


def test_two_handlers_for_one_type_are_refused_by_both_names() -> None:
    registry = Registry()
    registry.job("new")(plain)
    with pytest.raises(DuplicateName) as refusal:
        registry.job("new")(with_context)
    text = str(refusal.value)
    assert text.startswith("job type 'new' has two handlers: ")
    assert ".plain and " in text
    assert text.endswith(".with_context; rename or remove one")


def test_the_same_handler_may_be_registered_again() -> None:
    registry = Registry()
    registry.job("new")(plain)
    registry.job("new")(plain)
    assert len(registry.handlers()) == 1


def test_a_type_without_a_handler_is_not_contained() -> None:
    registry = Registry()
    assert "new" not in registry
    with pytest.raises(KeyError):
        registry["new"]


def _announce(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    entries = [EntryPoint(module, module, ENTRY_POINTS) for module in modules]
    monkeypatch.setattr(
        sys.modules["taskyard.jobs.handler_registry"], "entry_points", lambda **_: entries
    )


def test_a_module_that_cannot_be_imported_costs_no_other_its_handlers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _announce(monkeypatch, "absent.jobs", "json", "also.absent")
    assert Registry().load_entry_points(built_in=False) == [
        (
            "the job handlers 'absent.jobs' (entry point 'absent.jobs') cannot be imported: "
            "ModuleNotFoundError: No module named 'absent'"
        ),
        (
            "the job handlers 'also.absent' (entry point 'also.absent') cannot be imported: "
            "ModuleNotFoundError: No module named 'also'"
        ),
    ]


def test_the_built_in_jobs_are_imported_only_where_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _announce(monkeypatch, "taskyard.tasks.absent")
    assert Registry().load_entry_points(built_in=False) == []
    with pytest.raises(InvalidSettings, match="TASKYARD_BUILTIN_JOBS enables them"):
        Registry().load_entry_points(built_in=True)
