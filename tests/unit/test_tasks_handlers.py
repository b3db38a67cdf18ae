"""The four handlers, as the platform calls them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from taskyard.errors import CodedError
from taskyard.jobs import Catalogue, JobContext, registry
from taskyard.tasks import handlers
from taskyard.tasks.models import HealingRequest, LocatorBatchRequest, Outcome, PlanRequest
from taskyard.tasks.shop import Fault, ShopServer, feature_text

NAMES = ("plan_generation", "test_execution", "batch_locator_generation", "element_healing")


@dataclass
class Link:
    """The attempt's line to its record, kept in this process."""

    stop_after: int | None = None
    seen: list[tuple[float, str]] = field(default_factory=list)

    def cancelled(self) -> bool:
        return self.stop_after is not None and len(self.seen) >= self.stop_after

    def lease_lost(self) -> bool:
        return False

    def progress(self, fraction: float, note: str) -> None:
        self.seen.append((fraction, note))


def context(link: Link, deadline: datetime | None = None) -> JobContext:
    return JobContext(
        job_id="j", job_type="t", attempt=1, token=1, epoch=1, deadline=deadline, link=link
    )


@pytest.fixture
def shop() -> Iterator[ShopServer]:
    with ShopServer() as server:
        yield server


@pytest.mark.parametrize("name", NAMES)
def test_each_handler_takes_the_model_that_its_job_type_names(name):
    assert registry[name].payload_model is Catalogue.load(built_in=True)[name].model()
    assert registry[name].wants_context


def test_a_plan_s_result_is_the_next_job_s_payload_through_json(shop):
    link = Link()
    request = PlanRequest(feature=feature_text(), base_url=shop.url)
    plan = handlers.plan_generation(request, context(link))
    payload = registry["test_execution"].payload_model.model_validate_json(plan.model_dump_json())
    report = handlers.test_execution(payload, context(link))
    assert report.outcome is Outcome.PASSED
    assert [fraction for fraction, _ in link.seen[-3:]] == sorted(f for f, _ in link.seen[-3:])


def test_a_cancelled_run_stops_between_steps(shop):
    link = Link(stop_after=8)
    request = PlanRequest(feature=feature_text(), base_url=shop.url)
    plan = handlers.plan_generation(request, context(Link()))
    with pytest.raises(CodedError, match="asked to stop by an operator") as failure:
        handlers.test_execution(plan, context(link))
    assert (failure.value.code, len(link.seen)) == ("cancelled", 8)


def test_an_attempt_past_its_deadline_stops():
    past = datetime.now(UTC) - timedelta(seconds=1)
    with pytest.raises(CodedError, match="past its deadline") as failure:
        handlers.plan_generation(
            PlanRequest(feature=feature_text(), base_url="http://x.example"), context(Link(), past)
        )
    assert failure.value.code == "timeout"


def test_a_page_may_be_named_by_its_url(shop):
    batch = handlers.batch_locator_generation(
        LocatorBatchRequest(url=f"{shop.url}/checkout"), context(Link())
    )
    assert len(batch.elements) == 18


def test_a_button_that_was_renamed_while_the_shop_ran_is_healed(shop):
    page = f"{shop.url}/checkout"
    batch = handlers.batch_locator_generation(
        LocatorBatchRequest(url=page, elements=[{"key": "order", "selector": "#place-order"}]),
        context(Link()),
    )
    shop.break_with(Fault.RENAMED_BUTTON)
    request = HealingRequest(url=page, fingerprint=batch.elements[0].fingerprint)
    result = handlers.element_healing(request, context(Link()))
    assert result.healed.text == "Complete purchase"
    assert result.locators[0].playwright == 'getByTestId("place-order")'


def test_models_need_pydantic_and_the_standard_library_only():
    code = (
        "import sys; before = set(sys.modules); import pydantic, taskyard.tasks.models; "
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    third_party = {"lxml", "requests", "bs4", "mechanicalsoup", "gherkin", "rapidfuzz", "celery"}
    assert not third_party & set(eval(loaded.stdout))  # noqa: S307 - our own output
