"""test_execution on the live shop: green when whole, red with the right code when broken."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from taskyard.errors import CodedError
from taskyard.tasks.execution import BrowserlessDriver, run_plan
from taskyard.tasks.execution.run import raise_on_failure
from taskyard.tasks.models import Outcome, Plan, PlanRequest
from taskyard.tasks.planning import make_plan
from taskyard.tasks.shop import Fault, ShopServer, feature_text


@pytest.fixture
def shop() -> Iterator[ShopServer]:
    with ShopServer() as server:
        yield server


def run(plan: Plan, timeout_s: float = 5.0):
    return run_plan(plan, lambda: BrowserlessDriver(timeout_s), lambda done, total, note: None)


def planned(shop: ShopServer, *lines: str) -> Plan:
    feature = "\n".join(["Feature: F", "Scenario: S", *lines]) if lines else feature_text()
    return make_plan(PlanRequest(feature=feature, base_url=shop.url, file="checkout.feature"))


def failure(plan: Plan, timeout_s: float = 5.0) -> CodedError:
    with pytest.raises(CodedError) as caught:
        raise_on_failure(run(plan, timeout_s))
    return caught.value


def test_the_whole_feature_is_green_on_a_whole_shop(shop):
    report = run(planned(shop))
    assert (report.outcome, report.passed, report.failed) == (Outcome.PASSED, 5, 0)
    assert all(step.elapsed_ms >= 0 for flow in report.flows for step in flow.steps)


@pytest.mark.parametrize(
    ("fault", "code", "line"),
    [
        (Fault.RENAMED_BUTTON, "element_not_found", 26),
        (Fault.RENAMED_FIELD, "element_not_found", 15),
        (Fault.LOST_ORDER, "assertion_failure", 27),
        (Fault.ERROR_500, "element_not_found", 15),
    ],
)
def test_a_fault_is_red_with_its_code_and_line_and_a_repair_is_green(shop, fault, code, line):
    plan = planned(shop)
    shop.break_with(fault)
    error = failure(plan)
    assert (error.code, error.details["line"]) == (code, line)
    assert error.details["flow"] == "Order one product"
    assert error.details["selectors"]
    shop.repair()
    assert run(plan).outcome is Outcome.PASSED


def test_a_failed_flow_does_not_keep_the_next_from_running(shop):
    shop.break_with(Fault.LOST_ORDER)
    report = run(planned(shop))
    assert (report.passed, report.failed, report.not_run) == (4, 1, 0)
    assert report.flows[0].steps[-1].outcome is Outcome.NOT_RUN


def test_a_slow_site_is_a_network_timeout_and_ends_the_run(shop):
    shop.break_with(Fault.SLOW)
    error = failure(planned(shop), timeout_s=0.2)
    assert (error.code, error.details["not_run"]) == ("network_timeout", 4)


def test_a_refused_connection_is_a_network_timeout():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        feature = "Feature: F\nScenario: S\nGiven I am on the home page"
        plan = make_plan(PlanRequest(feature=feature, base_url=url))
        assert failure(plan).code == "network_timeout"


def test_a_fault_file_breaks_the_shop_while_it_exists(tmp_path):
    fault_file = tmp_path / "fault"
    with ShopServer(fault_file=fault_file) as shop:
        plan = planned(shop)
        fault_file.write_text("lost_order", encoding="utf-8")
        assert failure(plan).code == "assertion_failure"
        fault_file.write_text("", encoding="utf-8")
        assert failure(plan).code == "element_not_found"
        fault_file.unlink()
        assert run(plan).outcome is Outcome.PASSED


def test_a_wrong_value_is_an_assertion_failure_that_says_what_was_found(shop):
    plan = planned(shop, 'Given I open "/checkout"', 'Then the field "Email" should be "x"')
    assert "with {'value': 'x'}" in failure(plan).message


def test_a_wrong_place_is_an_assertion_failure(shop):
    plan = planned(shop, 'Given I open "/cart"', 'Then I should be on "/checkout"')
    error = failure(plan)
    assert error.code == "assertion_failure"
    assert "expected location.pathname to be '/checkout'" in error.message


def test_what_takes_no_value_cannot_be_filled_in(shop):
    plan = planned(shop, 'Given I open "/login"', 'When I fill in "Home" with "x"')
    assert failure(plan).code == "element_not_interactable"


def test_an_unknown_option_names_those_there_are(shop):
    plan = planned(shop, 'Given I open "/checkout"', 'When I select "France" from "Country"')
    error = failure(plan)
    assert error.code == "element_not_found"
    assert "Netherlands, Germany, United Kingdom" in error.message


def test_a_key_that_needs_scripts_is_refused_rather_than_ignored(shop):
    plan = planned(shop, 'Given I open "/login"', 'When I press the key "F5"')
    assert failure(plan).code == "unsupported_action"


def test_what_the_watch_raises_ends_the_run(shop):
    def watch(done: int, total: int, note: str) -> None:
        if done == 3:
            raise CodedError("cancelled", f"stopped at {note}")

    with pytest.raises(CodedError, match="stopped at Order one product: "):
        run_plan(planned(shop), BrowserlessDriver, watch)


def test_each_flow_starts_without_cookies(shop):
    one = 'Scenario: A\nGiven I open "/product/cup"\nWhen I click the button "Add to cart"\n'
    two = 'Scenario: B\nGiven I open "/cart"\nThen I should see "It is empty."'
    plan = make_plan(PlanRequest(feature=f"Feature: F\n{one}{two}", base_url=shop.url))
    assert run(plan).passed == 2


def test_a_recording_without_sources_runs_too(shop):
    recording = {
        "title": "Recorded",
        "steps": [
            {"type": "navigate", "url": f"{shop.url}/", "assertedEvents": [{"type": "navigation"}]},
            {
                "type": "click",
                "target": "main",
                "selectors": [["#missing"], ["aria/Browse the catalogue"]],
                "offsetX": 3,
                "offsetY": 4,
                "assertedEvents": [{"type": "navigation", "url": f"{shop.url}/catalogue"}],
            },
        ],
    }
    plan = Plan.model_validate(
        {"base_url": shop.url, "flows": [{"scenario": "Recorded", "flow": recording}]}
    )
    report = run(plan)
    assert report.outcome is Outcome.PASSED
    assert report.flows[0].steps[1].selector == "aria/Browse the catalogue"
