"""batch_locator_generation: every locator meets its element alone, by another reading as well."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from bs4 import BeautifulSoup, Tag
from lxml import etree

from taskyard.errors import CodedError
from taskyard.tasks.dom import BoundedSession
from taskyard.tasks.locators import make_batch
from taskyard.tasks.models import ElementRequest, LocatorBatch, LocatorBatchRequest, LocatorKind
from taskyard.tasks.shop import ShopServer

PATHS = ("/", "/catalogue", "/product/kettle", "/cart", "/checkout", "/login", "/search?q=tea")
ROLES = {"a": "link", "button": "button", "select": "combobox", "textarea": "textbox"}
INPUT_ROLES = {"search": "searchbox", "number": "spinbutton", "checkbox": "checkbox"}
INPUT_ROLES |= {"radio": "radio", "text": "textbox", "email": "textbox"}


@pytest.fixture(scope="module")
def pages() -> Iterator[dict[str, str]]:
    with ShopServer() as shop, BoundedSession() as session:
        for slug in ("green-tea", "kettle"):
            session.post(f"{shop.url}/cart/add", data={"slug": slug, "quantity": "2"})
        yield {path: session.get(shop.url + path).text for path in PATHS}


class Reader:
    """Another resolver, on another parse: soupsieve for CSS, libxml2 for XPath, bs4 for words."""

    def __init__(self, html: str) -> None:
        self.soup = BeautifulSoup(html, "html.parser")
        self.tree = etree.HTML(html)

    def count(self, selector: str) -> int:
        if selector.startswith("xpath/"):
            return len(self.tree.xpath(selector.removeprefix("xpath/")))
        if selector.startswith("text/"):
            return len(self.showing(selector.removeprefix("text/")))
        if selector.startswith("aria/"):
            return len(self.named(selector.removeprefix("aria/")))
        return len(self.soup.select(selector))

    def showing(self, text: str) -> list[Tag]:
        holds = [tag for tag in self.soup.body.find_all(True) if text in words(tag)]
        return [
            tag for tag in holds if not any(text in words(child) for child in tag.find_all(True))
        ]

    def named(self, query: str) -> list[Tag]:
        name, _, role = query.partition('[role="')
        tags = self.soup.find_all(["a", "button", "input", "select", "textarea", "img", "nav"])
        found = [tag for tag in tags if self.name(tag) == name and tag.get("type") != "hidden"]
        return [tag for tag in found if not role or role_of(tag) == role.removesuffix('"]')]

    def name(self, tag: Tag) -> str:
        if tag.get("aria-label"):
            return str(tag["aria-label"])
        label = self.soup.find("label", attrs={"for": tag.get("id", "")}) if tag.get("id") else None
        if label is not None:
            return words(label)
        shown = words(tag) if tag.name in ("a", "button") else ""
        image = tag.find("img")
        return shown or (str(image["alt"]) if image else "") or str(tag.get("alt", ""))


def words(tag: Tag) -> str:
    return re.sub(r"\s+", " ", tag.get_text()).strip()


def role_of(tag: Tag) -> str:
    return ROLES.get(tag.name) or INPUT_ROLES.get(tag.get("type", "text"), "")


def batch(html: str, **options: object) -> LocatorBatch:
    request = LocatorBatchRequest.model_validate({"html": html, **options})
    return make_batch(html, request, started_s=time.monotonic())


@pytest.mark.parametrize("path", PATHS)
def test_every_locator_of_every_page_meets_one_element_by_an_independent_reading(pages, path):
    reader = Reader(pages[path])
    made = batch(pages[path])
    counts = {
        locator.selector: reader.count(locator.selector)
        for element in made.elements
        for locator in element.locators
    }
    assert counts
    assert set(counts.values()) == {1}, counts


@pytest.mark.parametrize("path", PATHS)
def test_every_interactive_element_gets_three_to_five_locators_in_time(pages, path):
    made = batch(pages[path])
    soup = BeautifulSoup(pages[path], "html.parser")
    interactive = soup.select("a, button, input:not([type=hidden]), select, textarea")
    assert len(made.elements) == len(interactive)
    assert all(3 <= len(element.locators) <= 5 for element in made.elements)
    assert made.left_out == ()
    assert made.elapsed_ms < 4000


def test_kinds_come_in_playwright_s_order(pages):
    order = list(LocatorKind)
    for element in batch(pages["/checkout"]).elements:
        places = [order.index(locator.kind) for locator in element.locators]
        assert places == sorted(places)


def test_playwright_calls_are_written_out(pages):
    made = batch(pages["/login"], elements=[{"key": "go", "selector": "#sign-in"}])
    assert [locator.playwright for locator in made.elements[0].locators[:3]] == [
        'getByTestId("sign-in")',
        'getByRole("button", { name: "Sign in", exact: true })',
        'locator("#sign-in")',
    ]


def test_twins_get_only_locators_that_tell_them_apart():
    made = batch("<p><button>Go</button></p><p><button>Go</button></p>")
    for element in made.elements:
        assert {locator.kind for locator in element.locators} <= {
            LocatorKind.CSS,
            LocatorKind.XPATH,
        }


def test_too_few_locators_say_why():
    made = batch("<a href=x></a><a href=x></a>")
    assert [len(element.locators) for element in made.elements] == [2, 2]
    assert made.elements[0].shortfall.startswith("2 of 3 locators could be proven unique")


def test_a_selector_that_meets_none_or_many_is_left_out_with_the_reason():
    wanted = [ElementRequest(key="a", selector="#no"), ElementRequest(key="b", selector="p")]
    made = batch("<p>1</p><p>2</p>", elements=wanted)
    assert [(each.key, each.reason) for each in made.left_out] == [
        ("a", "expected '#no' to match exactly one element, it matches 0"),
        ("b", "expected 'p' to match exactly one element, it matches 2"),
    ]


class Ticks:
    """A clock that moves on by a second whenever it is read."""

    def __init__(self) -> None:
        self.read = -1.0

    def monotonic_s(self) -> float:
        self.read += 1
        return self.read


def test_what_there_was_no_time_for_is_listed():
    html = "".join(f"<button>{number}</button>" for number in range(9))
    request = LocatorBatchRequest(html=html, budget_s=4)
    made = make_batch(html, request, started_s=0.0, clock=Ticks())
    assert (len(made.elements), len(made.left_out)) == (4, 5)
    assert made.left_out[0].reason == "no time: 4 s were over after 4 of 9"


@pytest.mark.parametrize("name", ['say "hi"', "it's", "a]b", 'x[role="y"]', "a\\b", "é ☕", "#1"])
def test_odd_names_are_quoted_so_that_they_mean_themselves(name):
    soup = BeautifulSoup("<div><a href=u></a><a href=v>other</a></div>", "html.parser")
    for attribute in ("data-testid", "id", "title", "name", "aria-label"):
        soup.a[attribute] = name
    made = batch(str(soup))
    assert len(made.elements[0].locators) == 5


def test_a_page_nested_too_deeply_is_refused_not_cut():
    with pytest.raises(CodedError, match="nested more deeply") as failure:
        batch("<div>" * 1000 + "<a href=x>y</a>")
    assert failure.value.code == "invalid_page"
