"""The products of the shop, and the cart of one visitor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

__all__ = ["PRODUCTS", "Line", "Product", "Visitor", "money"]


@dataclass(frozen=True, slots=True)
class Product:
    """One product; `cents` is its price."""

    slug: str
    name: str
    cents: int
    description: str


PRODUCTS: Final = {
    product.slug: product
    for product in (
        Product("green-tea", "Green tea", 650, "Sencha from the first spring harvest."),
        Product("black-tea", "Black tea", 580, "Assam, strong enough for milk."),
        Product("herbal-tea", "Herbal tea", 520, "Camomile and mint, without caffeine."),
        Product("kettle", "Kettle", 3900, "Boils a litre in three minutes."),
        Product("cup", "Porcelain cup", 1200, "Thin, white, and dishwasher safe."),
        Product("strainer", "Strainer", 450, "Fine steel mesh on a long handle."),
    )
}


@dataclass(slots=True)
class Line:
    """One line of a cart: a product and its quantity."""

    product: Product
    quantity: int
    wrapped: bool

    @property
    def cents(self) -> int:
        """Return the line's price."""
        return self.product.cents * self.quantity


@dataclass(slots=True)
class Visitor:
    """The state of one session: user and cart."""

    user: str = ""
    cart: dict[str, Line] = field(default_factory=dict)
    orders: int = 0

    def add(self, slug: str, quantity: int, *, wrapped: bool) -> None:
        """Put a product into the cart; an unknown product is ignored."""
        if slug in PRODUCTS:
            before = self.cart[slug].quantity if slug in self.cart else 0
            self.cart[slug] = Line(PRODUCTS[slug], before + quantity, wrapped)

    @property
    def total_cents(self) -> int:
        """Return the price of the whole cart."""
        return sum(line.cents for line in self.cart.values())


def money(cents: int) -> str:
    """Return a price as people write it."""
    return f"€ {cents // 100}.{cents % 100:02d}"
