"""Convert a feature to a plan: one flow for each scenario, each step with its line."""

from __future__ import annotations

import re
from collections.abc import Callable

from rapidfuzz import fuzz, process

from taskyard.errors import CodedError
from taskyard.tasks.models.flow import SetViewportStep, Step, UserFlow
from taskyard.tasks.models.plan import Plan, PlannedFlow, PlanRequest, StepSource
from taskyard.tasks.planning.actions import Site, Words
from taskyard.tasks.planning.phrases import PHRASES
from taskyard.tasks.planning.scenarios import Feature, GherkinStep, Scenario, read_feature

__all__ = ["make_plan"]

_TEST_ID_ATTRIBUTE = "data-testid"
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")


def make_plan(request: PlanRequest, before_each: Callable[[int, int], None] | None = None) -> Plan:
    """Plan every scenario that the request's tags select.

    `before_each` is called with the number of planned scenarios and the number of all. Raises
    CodedErrors, which a retry cannot avoid: `invalid_gherkin`, `no_scenarios`, `unmatched_step`,
    `invalid_argument` (a table or doc string is missing), `invalid_url`.
    """
    feature = read_feature(request.feature, request.file)
    scenarios = _kept(feature, request)
    flows = []
    for number, scenario in enumerate(scenarios):
        if before_each is not None:
            before_each(number, len(scenarios))
        flows.append(_flow(scenario, feature, request))
    return Plan(
        base_url=request.base_url, feature=feature.name, file=request.file, flows=tuple(flows)
    )


def _kept(feature: Feature, request: PlanRequest) -> list[Scenario]:
    wanted, unwanted = set(request.with_tags), set(request.without_tags)
    kept = [
        scenario
        for scenario in feature.scenarios
        if wanted <= set(scenario.tags) and not unwanted & set(scenario.tags)
    ]
    if not kept:
        message = (
            f"{request.file}: none of {len(feature.scenarios)} scenarios has every tag of "
            f"{sorted(wanted)} and none of {sorted(unwanted)}"
        )
        raise CodedError("no_scenarios", message, details={"file": request.file})
    return kept


def _flow(scenario: Scenario, feature: Feature, request: PlanRequest) -> PlannedFlow:
    site = Site(request.base_url, request.test_id_attribute)
    window = SetViewportStep(width=request.viewport_width, height=request.viewport_height)
    steps: list[Step] = [window]
    sources = [StepSource(line=scenario.line, text=f"Scenario: {scenario.name}")]
    for gherkin_step in scenario.steps:
        made = _steps(gherkin_step, site, feature, request.file)
        steps += made
        sources += [StepSource(line=gherkin_step.line, text=gherkin_step.text)] * len(made)
    custom = request.test_id_attribute != _TEST_ID_ATTRIBUTE
    return PlannedFlow(
        scenario=scenario.name,
        line=scenario.line,
        tags=scenario.tags,
        flow=UserFlow(
            title=f"{feature.name}: {scenario.name}",
            steps=tuple(steps),
            selectorAttribute=request.test_id_attribute if custom else None,
        ),
        sources=tuple(sources),
    )


def _steps(step: GherkinStep, site: Site, feature: Feature, file: str) -> list[Step]:
    for phrase in PHRASES:
        groups = phrase.match(step.text)
        if groups is not None:
            return phrase.steps(Words(step, groups, site))
    raise _unmatched(step, feature, file)


def _unmatched(step: GherkinStep, feature: Feature, file: str) -> CodedError:
    nearest = nearest_phrase(step.text)
    message = f"{file}:{step.line}: no phrase matches {step.text!r}; the nearest is: {nearest}"
    if feature.language != "en":
        message += f". Keywords may be in {feature.language!r}, the phrases must be in English"
    details: dict[str, object] = {
        "file": file,
        "line": step.line,
        "text": step.text,
        "nearest": nearest,
        "language": feature.language,
    }
    return CodedError("unmatched_step", message, details=details)


def nearest_phrase(text: str) -> str:
    """Return the example of the phrase with the most similar words; quoted words do not count."""
    plain = {phrase.example: _unquoted(phrase.example) for phrase in PHRASES}
    best = process.extractOne(_unquoted(text), plain, scorer=fuzz.token_sort_ratio)
    return str(best[2])


def _unquoted(text: str) -> str:
    return _QUOTED.sub('""', text).lower()
