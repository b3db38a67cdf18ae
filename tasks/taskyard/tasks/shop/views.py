"""Return the shop's pages as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import Final

from taskyard.tasks.shop.faults import Fault
from taskyard.tasks.shop.stock import PRODUCTS, Product, Visitor, money

__all__ = ["COUNTRIES", "cart", "catalogue", "checkout", "home", "login", "message", "product"]
__all__ += ["search", "thanks"]

COUNTRIES: Final = {"nl": "Netherlands", "de": "Germany", "gb": "United Kingdom"}
_PAYMENTS: Final = {"card": "by card", "bill": "by invoice"}


@cache
def _template(name: str) -> Template:
    source = files("taskyard.tasks.shop") / "pages" / f"{name}.html"
    return Template(source.read_text(encoding="utf-8"))


def _fill(template: str, **words: object) -> str:
    """Return the template with every word escaped."""
    return _template(template).substitute({k: escape(str(v)) for k, v in words.items()})


def _page(page: str, title: str, visitor: Visitor, body: str, query: str = "") -> str:
    who = escape(visitor.user)
    sign_in = '<a id="nav-login" class="nav-link" href="/login">Sign in</a>'
    return _template("layout").substitute(
        page=page,
        title=escape(title),
        count=sum(line.quantity for line in visitor.cart.values()),
        account=f'<span class="hello">Hello, {who}</span>' if who else sign_in,
        query=escape(query),
        body=body,
    )


def _error(text: str) -> str:
    return f'<p class="error" role="alert">{escape(text)}</p>' if text else ""


def home(visitor: Visitor) -> str:
    """Return the start page."""
    return _page("home", "Welcome", visitor, _fill("home"))


def _tiles(products: Iterable[Product]) -> str:
    return "\n".join(
        _fill("tile", slug=each.slug, name=each.name, price=money(each.cents)) for each in products
    )


def _listing(products: list[Product]) -> str:
    words = {"found": str(len(products)), "products": _tiles(products)}
    return _template("catalogue").substitute(words)


def catalogue(visitor: Visitor) -> str:
    """Return the page of all products."""
    return _page("catalogue", "Catalogue", visitor, _listing(list(PRODUCTS.values())))


def search(visitor: Visitor, query: str) -> str:
    """Return the page of products whose name or description contains the words."""
    wanted = query.lower().strip()
    found = [each for each in PRODUCTS.values() if wanted in each.name.lower()]
    body = _listing(found) if found else _fill("message", heading="Search", message="No product")
    return _page("search", "Search", visitor, body, query)


def product(visitor: Visitor, slug: str) -> str | None:
    """Return the page of one product, or None for an unknown name."""
    found = PRODUCTS.get(slug)
    if found is None:
        return None
    words = {"slug": slug, "name": found.name, "price": money(found.cents)}
    body = _fill("product", description=found.description, **words)
    return _page("product", found.name, visitor, body)


def cart(visitor: Visitor) -> str:
    """Return the cart's page; an empty cart gets a note."""
    if not visitor.cart:
        return message(visitor, "Your cart", "It is empty.")
    rows = "\n".join(
        _fill(
            "row",
            slug=slug,
            name=line.product.name,
            wrapped=", as a gift" if line.wrapped else "",
            quantity=line.quantity,
            price=money(line.cents),
        )
        for slug, line in visitor.cart.items()
    )
    body = _template("cart").substitute(rows=rows, total=money(visitor.total_cents))
    return _page("cart", "Cart", visitor, body)


def checkout(visitor: Visitor, fault: Fault | None, form: Mapping[str, str], error: str) -> str:
    """Return the checkout form, with earlier input and its errors."""
    words = {
        "total": money(visitor.total_cents),
        "name_label": "Recipient" if fault is Fault.RENAMED_FIELD else "Full name",
        "order_label": "Complete purchase" if fault is Fault.RENAMED_BUTTON else "Place order",
        **{key: form.get(key, "") for key in ("name", "email", "address")},
    }
    escaped = {key: escape(value) for key, value in words.items()}
    body = _template("checkout").substitute(escaped, error=_error(error))
    return _page("checkout", "Checkout", visitor, body)


def thanks(visitor: Visitor, form: Mapping[str, str]) -> str:
    """Return the confirmation of an order."""
    body = _fill(
        "thanks",
        name=form["name"],
        number=visitor.orders,
        email=form["email"],
        country=COUNTRIES.get(form.get("country", ""), "you"),
        payment=_PAYMENTS.get(form.get("payment", ""), "later"),
    )
    return _page("thanks", "Thank you", visitor, body)


def login(visitor: Visitor, error: str = "") -> str:
    """Return the sign-in form."""
    body = _template("login").substitute(error=_error(error))
    return _page("login", "Sign in", visitor, body)


def message(visitor: Visitor, heading: str, text: str) -> str:
    """Return a page with one sentence."""
    return _page("message", heading, visitor, _fill("message", heading=heading, message=text))
