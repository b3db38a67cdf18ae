"""Names, roles, selectors and fetching, as browsers and screen readers have them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from taskyard.errors import CodedError
from taskyard.tasks.dom import BoundedSession, Page, fetch_html, resolve
from taskyard.tasks.dom.aria_roles import role_of
from taskyard.tasks.dom.names import name_of


@pytest.mark.parametrize(
    ("html", "role", "name"),
    [
        ('<button x aria-label="Close">X</button>', "button", "Close"),
        ("<a x href=/>Go <b>on</b></a>", "link", "Go on"),
        ("<a x>no link</a>", "", ""),
        ('<a x href=/><img alt="Home"></a>', "link", "Home"),
        ("<label>E-mail <input x></label>", "textbox", "E-mail"),
        ("<label for=e>E-mail</label><input x id=e type=search>", "searchbox", "E-mail"),
        ('<input x placeholder="Town">', "textbox", "Town"),
        ("<input x type=submit>", "button", "Submit"),
        ("<input x type=submit value=Send>", "button", "Send"),
        ("<i id=l>Age</i><input x type=number aria-labelledby=l>", "spinbutton", "Age"),
        ("<select x title=Pick><option>a</select>", "combobox", "Pick"),
        ("<h2 x>Your <span hidden>old</span>cart</h2>", "heading", "Your cart"),
        ("<img x alt=''>", "", ""),
        ("<fieldset x><legend>Pay</legend></fieldset>", "group", "Pay"),
        ("<div x role=button>Go</div>", "button", "Go"),
    ],
)
def test_elements_have_the_role_and_name_that_a_screen_reader_says(html, role, name):
    page = Page.parse(html)
    element = page.root.xpath("//*[@x]")[0]
    assert (role_of(element), name_of(page, element)) == (role, name)


HTML = """
<div id=a><p class=m>One tea</p><p>Two teas</p><button hidden>Gone</button></div>
<button>Pay</button><a href=/pay>Pay</a><input type=submit value="Send it">
"""


@pytest.mark.parametrize(
    ("selector", "tags"),
    [
        ("aria/Pay", ["button", "a"]),
        ('aria/Pay[role="link"]', ["a"]),
        ('aria/[role="button"]', ["button", "input"]),
        ("aria/Gone", []),
        ("text/tea", ["p", "p"]),
        ("text/teas", ["p"]),
        ("text/Send", ["input"]),
        ("xpath///p[@class='m']", ["p"]),
        ("pierce/#a > p", ["p", "p"]),
        ("#a .m", ["p"]),
    ],
)
def test_recorder_selectors_meet_what_the_recorder_meets(selector, tags):
    assert [element.tag for element in resolve(Page.parse(HTML), selector)] == tags


@pytest.mark.parametrize("selector", ["p[", "xpath///p[", "xpath/count(//p)", "aria/", "xpath/f()"])
def test_a_selector_that_makes_no_sense_is_an_error(selector):
    with pytest.raises(CodedError) as failure:
        resolve(Page.parse(HTML), selector)
    assert failure.value.code == "invalid_selector"


def test_entities_are_not_read_from_files():
    html = '<!DOCTYPE html [<!ENTITY x SYSTEM "file:///etc/hostname">]><p>&x;</p>'
    page = Page.parse(html)
    assert "&x" in page.text(page.root)


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = {"/later": 503, "/none": 404, "/away": 302}.get(self.path, 200)
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        if status == 302:
            self.send_header("Location", "file:///etc/hostname")
        self.end_headers()
        self.wfile.write(b"x" * (200_000 if self.path == "/big" else 10))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answers) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{listener.server_address[1]}"
        listener.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "code"),
    [("/later", "temporary_failure"), ("/none", "page_unavailable"), ("/away", "invalid_url")],
)
def test_an_answer_that_is_no_page_has_its_own_code(server, path, code):
    with pytest.raises(CodedError) as failure:
        fetch_html(server + path)
    assert failure.value.code == code


def test_a_page_over_the_limit_is_refused(server):
    with BoundedSession(max_bytes=100_000) as session, pytest.raises(CodedError) as failure:
        session.get(f"{server}/big")
    assert failure.value.code == "response_too_large"


def test_a_file_address_is_never_read():
    with BoundedSession() as session, pytest.raises(CodedError) as failure:
        session.get("file:///etc/hostname")
    assert failure.value.code == "invalid_url"
