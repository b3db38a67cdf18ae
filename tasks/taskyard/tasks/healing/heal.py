"""Find a lost element on a page, or leave the decision to a person."""

from __future__ import annotations

from typing import Final

from taskyard.clock import SYSTEM_CLOCK, Clock
from taskyard.errors import CodedError
from taskyard.tasks.dom.aria_roles import INTERACTIVE_ROLES, is_interactive
from taskyard.tasks.dom.fingerprint import fingerprint_of
from taskyard.tasks.dom.page import Element, Page
from taskyard.tasks.dom.selectors import resolve
from taskyard.tasks.healing.rank import Ranked, rank
from taskyard.tasks.locators.element import locators_for
from taskyard.tasks.models.fingerprint import Fingerprint
from taskyard.tasks.models.healing import HealingCandidate, HealingRequest, HealingResult

__all__ = ["heal"]

_SHOWN_CANDIDATES: Final = 5
_MOST_LOCATORS: Final = 5
_FIELD_TAGS: Final = ("input", "select", "textarea", "summary")


def heal(
    html: str, request: HealingRequest, *, started_s: float, clock: Clock = SYSTEM_CLOCK
) -> HealingResult:
    """The element of `html` that is the lost one, if the confidence reaches the request's gate.

    CodedErrors: `low_confidence` with the best candidates in its details (`outcome` is
    `manual_review`), `dom_analysis_timeout` once `budget_s` has passed since `started_s` on the
    clock's monotonic time, `invalid_page`, `invalid_selector`, and `element_not_found` where the
    selector does not match exactly one element of `known_html`.
    """
    lost = _lost(request)
    page = Page.parse(html)
    pool = _pool(page, lost)

    def check_time() -> None:
        if clock.monotonic_s() - started_s > request.budget_s:
            message = f"{len(pool)} candidates took over {request.budget_s:g} s to compare"
            raise CodedError("dom_analysis_timeout", message)

    prints = []
    for element in pool:
        check_time()
        prints.append(fingerprint_of(page, element, request.test_id_attribute))
    ranked = rank(lost, prints, check_time)
    top = [_candidate(each, prints[each.index]) for each in ranked[:_SHOWN_CANDIDATES]]
    if not top or top[0].confidence < request.gate:
        raise _unsure(lost, top, request.gate)
    return _result(page, pool[ranked[0].index], prints[ranked[0].index], top, request)


def _lost(request: HealingRequest) -> Fingerprint:
    if request.fingerprint is not None:
        return request.fingerprint
    known = Page.parse(request.known_html or "")
    found = resolve(known, request.selector)
    if len(found) != 1:
        message = (
            f"expected {request.selector!r} to match exactly one element of known_html, "
            f"it matches {len(found)}; give the page on which it still worked"
        )
        raise CodedError("element_not_found", message)
    return fingerprint_of(known, found[0], request.test_id_attribute)


def _pool(page: Page, lost: Fingerprint) -> list[Element]:
    """Return the candidates.

    If a person acts on the lost element, the candidates are elements on which a person acts.
    """
    if lost.role in INTERACTIVE_ROLES or lost.tag in _FIELD_TAGS:
        return [each for each in page.visible if is_interactive(each) or _listens(each)]
    return [each for each in page.visible if each.tag not in ("html", "body")]


def _listens(element: Element) -> bool:
    return element.get("onclick") is not None or (element.get("tabindex") or "-1") != "-1"


def _candidate(ranked: Ranked, seen: Fingerprint) -> HealingCandidate:
    return HealingCandidate(
        xpath=seen.xpath,
        tag=seen.tag,
        text=seen.text or seen.label,
        similarity=round(ranked.similarity, 4),
        confidence=round(ranked.confidence, 4),
    )


def _result(
    page: Page,
    element: Element,
    seen: Fingerprint,
    top: list[HealingCandidate],
    request: HealingRequest,
) -> HealingResult:
    return HealingResult(
        confidence=top[0].confidence,
        similarity=top[0].similarity,
        margin=_margin(top),
        healed=top[0],
        locators=locators_for(page, element, _MOST_LOCATORS, request.test_id_attribute),
        fingerprint=seen,
        candidates=tuple(top[1:]),
    )


def _margin(top: list[HealingCandidate]) -> float:
    return round(top[0].similarity - (top[1].similarity if len(top) > 1 else 0.0), 4)


def _unsure(lost: Fingerprint, top: list[HealingCandidate], gate: float) -> CodedError:
    name = lost.label or lost.text or lost.id or lost.xpath
    best = f"the best has {top[0].confidence:.2f}" if top else "there is none"
    message = f"no candidate for the {lost.tag} {name!r} reaches confidence {gate:g}: {best}"
    details: dict[str, object] = {
        "outcome": "manual_review",
        "gate": gate,
        "margin": _margin(top) if top else 0.0,
        "candidates": [each.model_dump(mode="json") for each in top],
    }
    return CodedError("low_confidence", message, details=details)
