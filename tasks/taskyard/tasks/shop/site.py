"""The shop's answer to each request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from taskyard.tasks.shop import views
from taskyard.tasks.shop.faults import Fault
from taskyard.tasks.shop.stock import Visitor

__all__ = ["Answer", "Request", "answer"]

_PASSWORD: Final = "tea"  # noqa: S105 - the sign-in page prints it
_MOST_OF_ONE: Final = 20


@dataclass(frozen=True, slots=True)
class Request:
    """One request of one visitor; `form` holds the query's or the body's fields."""

    path: str
    form: Mapping[str, str]
    visitor: Visitor
    fault: Fault | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A page, or the address of a redirect."""

    body: str = ""
    status: int = 200
    location: str | None = None


def answer(method: str, request: Request) -> Answer:
    """Return the answer to a request; 404 for an unknown page."""
    if request.fault is Fault.ERROR_500 and request.path.startswith("/checkout"):
        return Answer("<!doctype html><title>Error</title><h1>Internal error</h1>", 500)
    if method == "GET" and request.path.startswith("/product/"):
        page = views.product(request.visitor, request.path.removeprefix("/product/"))
        return _missing(request) if page is None else Answer(page)
    return _ROUTES.get((method, request.path), _missing)(request)


def _missing(request: Request) -> Answer:
    return Answer(views.message(request.visitor, "Not found", "There is no such page."), 404)


def _home(request: Request) -> Answer:
    return Answer(views.home(request.visitor))


def _catalogue(request: Request) -> Answer:
    return Answer(views.catalogue(request.visitor))


def _search(request: Request) -> Answer:
    return Answer(views.search(request.visitor, request.form.get("q", "")))


def _newsletter(request: Request) -> Answer:
    text = f"We shall write to {request.form.get('newsletter', '')}."
    return Answer(views.message(request.visitor, "Subscribed", text))


def _cart(request: Request) -> Answer:
    return Answer(views.cart(request.visitor))


def _add(request: Request) -> Answer:
    written = request.form.get("quantity", "1")
    quantity = min(int(written), _MOST_OF_ONE) if written.isdecimal() else 1
    wrapped = request.form.get("wrap") == "yes"
    request.visitor.add(request.form.get("slug", ""), quantity, wrapped=wrapped)
    return Answer(status=303, location="/cart")


def _remove(request: Request) -> Answer:
    request.visitor.cart.pop(request.form.get("slug", ""), None)
    return Answer(status=303, location="/cart")


def _checkout_form(request: Request) -> Answer:
    return Answer(views.checkout(request.visitor, request.fault, {}, ""))


def _order(request: Request) -> Answer:
    missing = [key for key in ("name", "email", "address") if not request.form.get(key, "").strip()]
    error = f"Please fill in: {', '.join(missing)}" if missing else ""
    if not error and request.form.get("terms") != "yes":
        error = "Please accept the terms"
    if error:
        return Answer(views.checkout(request.visitor, request.fault, request.form, error))
    if request.fault is Fault.LOST_ORDER:
        return Answer(views.message(request.visitor, "Sorry", "Something went wrong."))
    request.visitor.orders += 1
    request.visitor.cart.clear()
    return Answer(views.thanks(request.visitor, request.form))


def _login_form(request: Request) -> Answer:
    return Answer(views.login(request.visitor))


def _login(request: Request) -> Answer:
    if request.form.get("password") != _PASSWORD or not request.form.get("user"):
        return Answer(views.login(request.visitor, "Wrong user name or password"))
    request.visitor.user = request.form["user"]
    return Answer(status=303, location="/")


_ROUTES: Final[dict[tuple[str, str], Callable[[Request], Answer]]] = {
    ("GET", "/"): _home,
    ("GET", "/catalogue"): _catalogue,
    ("GET", "/search"): _search,
    ("POST", "/newsletter"): _newsletter,
    ("GET", "/cart"): _cart,
    ("POST", "/cart/add"): _add,
    ("POST", "/cart/remove"): _remove,
    ("GET", "/checkout"): _checkout_form,
    ("POST", "/checkout"): _order,
    ("GET", "/login"): _login_form,
    ("POST", "/login"): _login,
}
