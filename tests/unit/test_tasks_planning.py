"""plan_generation: features become Recorder flows, or say exactly why not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.errors import CodedError
from taskyard.tasks.models import Plan, PlanRequest
from taskyard.tasks.planning import PHRASES, make_plan
from taskyard.tasks.shop import feature_text

BASE = "http://shop.example"
ALLOWED = {"unmatched_step", "invalid_gherkin", "no_scenarios", "invalid_url", "invalid_argument"}


def plan(*lines: str, **options: object) -> Plan:
    feature = "\n".join(["Feature: Shop", "Scenario: One", *lines])
    return make_plan(PlanRequest.model_validate({"feature": feature, "base_url": BASE, **options}))


def steps(*lines: str) -> list[dict[str, object]]:
    return plan(*lines).model_dump(mode="json")["flows"][0]["flow"]["steps"][1:]


def spoken(example: str) -> str:
    head, bracket, _ = example.partition(": (")
    return f"{head}:" if bracket else example


@pytest.mark.parametrize("phrase", PHRASES, ids=lambda phrase: phrase.example)
def test_every_example_is_matched_by_its_own_phrase_and_no_other(phrase):
    matching = [each.example for each in PHRASES if each.match(spoken(phrase.example)) is not None]
    assert matching == [phrase.example]


def test_a_path_is_joined_to_the_base_url():
    assert steps('Given I open "/cart"')[0]["url"] == "http://shop.example/cart"


def test_a_base_url_with_a_path_keeps_it():
    made = plan("Given I am on the home page", base_url="http://shop.example/de")
    assert made.flows[0].flow.steps[1].url == "http://shop.example/de/"


def test_a_file_address_is_refused():
    with pytest.raises(CodedError, match="expected a path or an http or https URL") as failure:
        plan('Given I open "file:///etc/passwd"')
    assert failure.value.code == "invalid_url"


def test_a_click_on_a_named_kind_asks_for_its_role():
    assert steps('When I click the button "Pay"')[0]["selectors"] == [['aria/Pay[role="button"]']]


def test_kind_and_name_may_come_in_either_order():
    assert steps('When I click the "Pay" button') == steps('When I click the button "Pay"')


def test_a_table_fills_one_field_a_row_and_skips_its_heading():
    made = steps(
        "When I fill in the following:",
        "  | Field | Value |",
        "  | Name  | Ada   |",
        "  | Town  | Paris |",
    )
    assert [(step["type"], step["value"]) for step in made] == [
        ("change", "Ada"),
        ("change", "Paris"),
    ]


def test_a_missing_table_is_an_error_that_names_the_line():
    with pytest.raises(CodedError, match=r"line 3: .* needs a table of two columns") as failure:
        plan("When I fill in the following:")
    assert failure.value.code == "invalid_argument"


def test_quotes_may_stand_inside_quotes_with_a_backslash():
    made = steps(r'Then I should see "a \"good\" cup"')
    assert made[0]["selectors"] == [['text/a "good" cup']]


def test_an_outline_gives_one_flow_an_example_row_at_the_row_s_line():
    feature = "\n".join(
        [
            "Feature: F",
            "  Scenario Outline: Open <page>",
            '    Given I open "<page>"',
            "    Examples:",
            "      | page |",
            "      | /a   |",
            "      | /b   |",
        ]
    )
    made = make_plan(PlanRequest(feature=feature, base_url=BASE))
    assert [(flow.scenario, flow.line) for flow in made.flows] == [("Open /a", 6), ("Open /b", 7)]
    assert made.flows[1].sources[1].line == 3


def test_a_background_comes_first_in_every_scenario():
    text = 'Feature: F\nBackground:\nGiven I open "/a"\nScenario: S\nThen I should see "b"'
    made = make_plan(PlanRequest(feature=text, base_url=BASE))
    assert [source.line for source in made.flows[0].sources] == [4, 3, 5]


def test_tags_choose_scenarios():
    text = '@x\nFeature: F\n@y\nScenario: A\nGiven I open "/a"\nScenario: B\nGiven I open "/b"'
    request = PlanRequest(feature=text, base_url=BASE, with_tags=("@x",), without_tags=("@y",))
    assert [flow.scenario for flow in make_plan(request).flows] == ["B"]


def test_unmatched_words_name_file_line_text_and_the_nearest_phrase():
    with pytest.raises(CodedError) as failure:
        plan('When I smash the "Pay" button', file="pay.feature")
    assert failure.value.code == "unmatched_step"
    assert str(failure.value) == (
        "pay.feature:3: no phrase matches 'I smash the \"Pay\" button'; "
        'the nearest is: I click the button "Add to cart"'
    )
    assert failure.value.details["line"] == 3


def test_keywords_of_another_language_are_known_and_phrases_must_be_english():
    french = 'Fonctionnalité: F\nScénario: S\nSoit I open "/a"'
    assert make_plan(PlanRequest(feature=f"# language: fr\n{french}", base_url=BASE)).flows
    french += '\nQuand je clique sur "Payer"'
    with pytest.raises(CodedError, match="may be in 'fr', the phrases must be in English"):
        make_plan(PlanRequest(feature=f"# language: fr\n{french}", base_url=BASE))


@pytest.mark.parametrize("text", ["", "Feature: F", "Feature: F\nScenario: empty"])
def test_a_feature_without_steps_is_an_error(text):
    with pytest.raises(CodedError) as failure:
        make_plan(PlanRequest(feature=text, base_url=BASE))
    assert failure.value.code == "no_scenarios"


def test_bad_syntax_is_an_error_that_names_the_line():
    with pytest.raises(CodedError, match=r"f\.feature:4: ") as failure:
        make_plan(
            PlanRequest(
                feature="Feature: F\nScenario: S\nGiven x\nnonsense",
                base_url=BASE,
                file="f.feature",
            )
        )
    assert failure.value.code == "invalid_gherkin"
    assert failure.value.details["line"] == 4


@given(st.text(max_size=200))
def test_whatever_the_text_the_answer_is_a_plan_or_a_coded_error(text):
    try:
        make_plan(PlanRequest(feature=f"Feature: F\nScenario: S\nGiven {text}", base_url=BASE))
    except CodedError as error:
        if error.code not in ALLOWED:
            raise


def test_a_plan_survives_json_as_the_payload_of_the_next_job():
    made = make_plan(PlanRequest(feature=feature_text(), base_url=BASE))
    assert Plan.model_validate(json.loads(made.model_dump_json())) == made


def test_flows_have_no_null_which_the_recorder_would_refuse():
    made = make_plan(PlanRequest(feature=feature_text(), base_url=BASE))
    flows = [flow.flow.model_dump(mode="json") for flow in made.flows]
    assert "null" not in json.dumps(flows)
