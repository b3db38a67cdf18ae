"""The fixed table of phrases: the text of a step, and the Recorder steps for it.

A step that matches no phrase is an error. An error shows the `example` of the most similar phrase.
`words` is a pattern in which {name} stands for quoted words, {kind} for a kind of element and
{number} for digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from taskyard.tasks.models.flow import Step
from taskyard.tasks.planning import actions as do
from taskyard.tasks.planning.actions import Words
from taskyard.tasks.planning.targets import KINDS

__all__ = ["PHRASES", "Phrase"]

_WHO: Final = r"(?:i|we|they|he|she|(?:the|a) (?:user|customer|visitor|shopper|guest))"
_KIND_WORDS: Final = "|".join(sorted(KINDS, key=len, reverse=True))
_SLOTS: Final = {
    "kind": rf"(?P<kind>{_KIND_WORDS})",
    "width": r"(?P<width>\d{2,5})",
    "height": r"(?P<height>\d{2,5})",
    "count": r"(?P<count>\d{1,6})",
}


@dataclass(frozen=True)
class Phrase:
    """One row of the table."""

    example: str
    words: str
    steps: Callable[[Words], list[Step]]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Return the compiled pattern; upper and lower case are equal outside quotes."""
        body = re.sub(r"\{(\w+)\}", lambda slot: _slot(slot[1]), self.words)
        return re.compile(rf"(?:{_WHO} )?{body}[.]?", re.IGNORECASE)

    def match(self, text: str) -> dict[str, str] | None:
        """Return the captured words, or None for another text.

        Words are without quotes, kinds in lower case.
        """
        found = self.pattern.fullmatch(text.strip())
        if found is None:
            return None
        named = {name: value for name, value in found.groupdict().items() if value is not None}
        return {name: _plain(name, value) for name, value in named.items()}


def _slot(name: str) -> str:
    return _SLOTS.get(name, rf"(?P<{name}>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')")


def _plain(name: str, value: str) -> str:
    if name == "kind":
        return value.lower()
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value[:1] in "\"'" else value


PHRASES: Final = (
    Phrase('I am on "/cart"', "(?:am|is|are) (?:on|at) (?:the )?{path}(?: page)?", do.navigate),
    Phrase(
        'I open "/cart"',
        "(?:open|visit|go(?:es)? to|navigate to)s? (?:the )?{path}(?: page)?",
        do.navigate,
    ),
    Phrase(
        "I am on the home page",
        "(?:(?:am|is|are) (?:on|at)|opens?|visits?|goe?s? to) the home ?page",
        do.navigate_home,
    ),
    Phrase(
        "the window is 1280 by 720",
        "the (?:window|viewport|screen) is {width} ?(?:by|x) ?{height}(?: pixels)?",
        do.set_viewport,
    ),
    Phrase('I click "Add to cart"', "(?:click|tap)s?(?: on)? {name}", do.click),
    Phrase('I press "Add to cart"', "press(?:es)? {name}", do.click),
    Phrase(
        'I click the button "Add to cart"',
        "(?:(?:click|tap|follow)s?(?: on)?|press(?:es)?|chooses?) (?:the )?{kind} {name}",
        do.click_kind,
    ),
    Phrase(
        'I click the "Add to cart" button',
        "(?:(?:click|tap|follow)s?(?: on)?|press(?:es)?|chooses?) (?:the )?{name} {kind}",
        do.click_kind,
    ),
    Phrase(
        'I click the element with test id "cart-link"',
        "(?:click|tap)s?(?: on)? the element with test ?id {name}",
        do.click_test_id,
    ),
    Phrase(
        'I click the element "css, xpath/... or text/..."',
        "(?:click|tap)s?(?: on)? the element {name}",
        do.click_selector,
    ),
    Phrase('I double-click "Row"', "double[- ]clicks?(?: on)? {name}", do.double_click),
    Phrase('I hover over "Menu"', "hovers? over {name}", do.hover),
    Phrase(
        'I fill in "Email" with "ada@example.org"',
        "fills?(?: in)? (?:the )?(?:field )?{field}(?: field)? with {value}",
        do.fill,
    ),
    Phrase(
        'I enter "ada@example.org" into "Email"',
        "(?:enter|type|put)s? {value} in(?:to)? (?:the )?(?:field )?{field}(?: field)?",
        do.fill,
    ),
    Phrase(
        'I set "Quantity" to "2"',
        "sets? (?:the )?(?:field )?{field}(?: field)? to {value}",
        do.fill,
    ),
    Phrase(
        'I fill in "Notes" with: (a doc string)',
        "fills?(?: in)? (?:the )?(?:field )?{field}(?: field)? with:",
        do.fill_from_doc_string,
    ),
    Phrase(
        "I fill in the following: (a table of field and value)",
        "fills?(?: in)? the (?:following|form)(?: fields| with)?:",
        do.fill_from_table,
    ),
    Phrase('I clear "Email"', "clears? (?:the )?(?:field )?{field}(?: field)?", do.clear),
    Phrase(
        'I select "Express" from "Delivery"',
        "(?:select|choose|pick)s? {value} (?:from|in) (?:the )?(?:field |list )?{field}(?: list)?",
        do.fill,
    ),
    Phrase('I tick "I accept"', "(?:tick|check)s? (?:the )?(?:checkbox |box )?{name}", do.tick),
    Phrase(
        'I untick "I accept"',
        "(?:untick|uncheck)s? (?:the )?(?:checkbox |box )?{name}",
        do.untick,
    ),
    Phrase('I choose "By card"', "chooses? (?:the )?{name}", do.choose_radio),
    Phrase('I press the key "Enter"', "press(?:es)? the key {key}", do.press_key),
    Phrase('I press the "Enter" key', "press(?:es)? the {key} key", do.press_key),
    Phrase('I wait for "Thank you"', "waits? (?:for|until I see) {text}", do.see_text),
    Phrase('I should see "Thank you"', "(?:should )?sees? {text}", do.see_text),
    Phrase(
        "I should see the following: (a table of texts)",
        "(?:should )?sees? the following(?: texts)?:",
        do.see_texts,
    ),
    Phrase('I should not see "Error"', "(?:should|do|does) not see {text}", do.see_no_text),
    Phrase(
        'I should see the heading "Your cart"',
        "(?:should )?sees? (?:the |an? )?{kind} {name}",
        do.see_kind,
    ),
    Phrase(
        'I should see the "Your cart" heading',
        "(?:should )?sees? (?:the |an? )?{name} {kind}",
        do.see_kind,
    ),
    Phrase(
        'I should not see the button "Pay"',
        "(?:should|do|does) not see (?:the |an? )?{kind} {name}",
        do.see_no_kind,
    ),
    Phrase(
        'I should not see the "Pay" button',
        "(?:should|do|does) not see (?:the |an? )?{name} {kind}",
        do.see_no_kind,
    ),
    Phrase(
        'I should see the field "Email"',
        "(?:should )?sees? (?:the |a )?field {field}",
        do.see_field,
    ),
    Phrase(
        'I should see the element with test id "cart-total"',
        "(?:should )?sees? (?:the|an) element with test ?id {name}",
        do.see_test_id,
    ),
    Phrase(
        'I should see 3 elements "li.product"',
        "(?:should )?sees? {count} elements? {name}",
        do.see_count,
    ),
    Phrase(
        'the field "Email" should be "ada@example.org"',
        "the (?:field )?{field}(?: field)? should (?:be|have the value|contain) {value}",
        do.see_value,
    ),
    Phrase(
        'the field "Email" should be empty',
        "the (?:field )?{field}(?: field)? should be empty",
        do.see_empty,
    ),
    Phrase(
        'the checkbox "I accept" should be ticked',
        "the {kind} {name} should be (?:ticked|checked|selected)",
        do.see_ticked,
    ),
    Phrase(
        'the checkbox "I accept" should not be ticked',
        "the {kind} {name} should (?:not be (?:ticked|checked|selected)|be un(?:ticked|checked))",
        do.see_unticked,
    ),
    Phrase(
        'the button "Pay" should be disabled',
        "the {kind} {name} should be disabled",
        do.see_disabled,
    ),
    Phrase(
        'the button "Pay" should be enabled', "the {kind} {name} should be enabled", do.see_enabled
    ),
    Phrase('I should be on "/cart"', "should be (?:on|at) (?:the )?{path}(?: page)?", do.be_on),
    Phrase('the title should be "Cart"', "the (?:page )?title should be {text}", do.see_title),
)
