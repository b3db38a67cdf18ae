"""The Recorder steps for each phrase of the table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from taskyard.errors import CodedError
from taskyard.tasks.models.flow import (
    ChangeStep,
    ClickStep,
    DoubleClickStep,
    HoverStep,
    KeyDownStep,
    KeyUpStep,
    NavigateStep,
    Selectors,
    SetViewportStep,
    Step,
    WaitForElementStep,
    WaitForExpressionStep,
)
from taskyard.tasks.planning import targets
from taskyard.tasks.planning.scenarios import GherkinStep

__all__ = ["Site", "Words"]


@dataclass(frozen=True, slots=True)
class Site:
    """The facts about the site that a phrase needs."""

    base_url: str
    test_id_attribute: str

    def address(self, path: str) -> str:
        """Return `path` as a full URL.

        Raises CodedError `invalid_url` for a scheme other than http and https.
        """
        url = urljoin(
            self.base_url.rstrip("/") + "/", path.lstrip("/") if "://" not in path else path
        )
        if urlsplit(url).scheme not in ("http", "https"):
            raise CodedError(
                "invalid_url", f"expected a path or an http or https URL, got {path!r}"
            )
        return url


@dataclass(frozen=True, slots=True)
class Words:
    """A matched phrase: its step, and the captured words by name."""

    step: GherkinStep
    groups: dict[str, str]
    site: Site

    def __getitem__(self, name: str) -> str:
        """Return a captured word."""
        return self.groups[name]


def navigate(words: Words) -> list[Step]:
    return [NavigateStep(url=words.site.address(words["path"]))]


def navigate_home(words: Words) -> list[Step]:
    return [NavigateStep(url=words.site.address("/"))]


def set_viewport(words: Words) -> list[Step]:
    return [SetViewportStep(width=int(words["width"]), height=int(words["height"]))]


def click(words: Words) -> list[Step]:
    return [ClickStep(selectors=targets.clickable(words["name"]))]


def click_kind(words: Words) -> list[Step]:
    return [ClickStep(selectors=targets.element(words["name"], words["kind"]))]


def click_test_id(words: Words) -> list[Step]:
    attribute = words.site.test_id_attribute
    return [ClickStep(selectors=targets.by_test_id(words["name"], attribute))]


def click_selector(words: Words) -> list[Step]:
    return [ClickStep(selectors=targets.by_selector(words["name"]))]


def double_click(words: Words) -> list[Step]:
    return [DoubleClickStep(selectors=targets.clickable(words["name"]))]


def hover(words: Words) -> list[Step]:
    return [HoverStep(selectors=targets.clickable(words["name"]))]


def fill(words: Words) -> list[Step]:
    return [ChangeStep(selectors=targets.field(words["field"]), value=words["value"])]


def fill_from_doc_string(words: Words) -> list[Step]:
    if words.step.doc_string is None:
        raise _wants(words, "a doc string with the value")
    return [ChangeStep(selectors=targets.field(words["field"]), value=words.step.doc_string)]


def fill_from_table(words: Words) -> list[Step]:
    return [
        ChangeStep(selectors=targets.field(name), value=value)
        for name, value in _pairs(words)
        if (name.lower(), value.lower()) != ("field", "value")
    ]


def clear(words: Words) -> list[Step]:
    return [ChangeStep(selectors=targets.field(words["field"]), value="")]


def press_key(words: Words) -> list[Step]:
    return [KeyDownStep(key=words["key"]), KeyUpStep(key=words["key"])]


def tick(words: Words) -> list[Step]:
    """Click a box, then check that it is ticked: the click unticks a box that was ticked before."""
    return _tick(words["name"], "checkbox", wanted=True)


def untick(words: Words) -> list[Step]:
    return _tick(words["name"], "checkbox", wanted=False)


def choose_radio(words: Words) -> list[Step]:
    return _tick(words["name"], "radio button", wanted=True)


def see_text(words: Words) -> list[Step]:
    return [_wait(targets.shown_text(words["text"]))]


def see_texts(words: Words) -> list[Step]:
    if not words.step.table:
        raise _wants(words, "a table of texts")
    return [_wait(targets.shown_text(cell)) for row in words.step.table for cell in row if cell]


def see_no_text(words: Words) -> list[Step]:
    return [_wait_none(targets.shown_text(words["text"]))]


def see_kind(words: Words) -> list[Step]:
    return [_wait(targets.element(words["name"], words["kind"]))]


def see_no_kind(words: Words) -> list[Step]:
    return [_wait_none(targets.element(words["name"], words["kind"]))]


def see_field(words: Words) -> list[Step]:
    return [_wait(targets.field(words["field"]))]


def see_test_id(words: Words) -> list[Step]:
    return [_wait(targets.by_test_id(words["name"], words.site.test_id_attribute))]


def see_count(words: Words) -> list[Step]:
    selectors = targets.by_selector(words["name"])
    count = int(words["count"])
    return [WaitForElementStep(selectors=selectors, operator="==", count=count, visible=True)]


def see_value(words: Words) -> list[Step]:
    return [_wait(targets.field(words["field"]), value=words["value"])]


def see_empty(words: Words) -> list[Step]:
    return [_wait(targets.field(words["field"]), value="")]


def see_ticked(words: Words) -> list[Step]:
    return [_wait(targets.element(words["name"], words["kind"]), checked=True)]


def see_unticked(words: Words) -> list[Step]:
    return [_wait(targets.element(words["name"], words["kind"]), checked=False)]


def see_disabled(words: Words) -> list[Step]:
    return [_wait(targets.element(words["name"], words["kind"]), disabled=True)]


def see_enabled(words: Words) -> list[Step]:
    return [_wait(targets.element(words["name"], words["kind"]), disabled=False)]


def be_on(words: Words) -> list[Step]:
    path = urlsplit(words.site.address(words["path"])).path or "/"
    return [WaitForExpressionStep(expression=f"location.pathname === {json.dumps(path)}")]


def see_title(words: Words) -> list[Step]:
    return [WaitForExpressionStep(expression=f"document.title === {json.dumps(words['text'])}")]


def _tick(name: str, kind: str, *, wanted: bool) -> list[Step]:
    selectors = targets.element(name, kind)
    return [ClickStep(selectors=selectors), _wait(selectors, checked=wanted)]


def _wait(selectors: Selectors, **properties: str | bool | int | float) -> WaitForElementStep:
    return WaitForElementStep(selectors=selectors, visible=True, properties=properties or None)


def _wait_none(selectors: Selectors) -> WaitForElementStep:
    return WaitForElementStep(selectors=selectors, operator="==", count=0, visible=True)


def _pairs(words: Words) -> list[tuple[str, str]]:
    rows = words.step.table
    if not rows or any(len(row) != 2 for row in rows):  # noqa: PLR2004 - a field and its value
        raise _wants(words, "a table of two columns, field and value")
    return [(row[0], row[1]) for row in rows]


def _wants(words: Words, what: str) -> CodedError:
    step = words.step
    message = f"line {step.line}: {step.text!r} needs {what} under it"
    return CodedError("invalid_argument", message, details={"line": step.line, "text": step.text})
