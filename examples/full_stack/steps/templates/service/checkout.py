"""Carts, discounts, totals and orders. Money is whole cents everywhere, and nothing here knows about HTTP."""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import asdict

from service.contract import (
    CURRENCY,
    DISCOUNTS,
    PRODUCTS,
    VAT_PERCENT,
    Cart,
    DiscountCode,
    ItemQuantity,
    Line,
    Order,
    Product,
    Totals,
)

TABLES = """
CREATE TABLE IF NOT EXISTS carts (cart_id TEXT PRIMARY KEY, discount_code TEXT, closed INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS items (cart_id TEXT, sku TEXT, quantity INTEGER NOT NULL, PRIMARY KEY (cart_id, sku));
CREATE TABLE IF NOT EXISTS orders (order_id TEXT PRIMARY KEY, body TEXT NOT NULL);
"""


class Refused(Exception):
    """A request that is understood and not granted; ``code`` is one of the contract's error codes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def percent_of(cents: int, percent: int) -> int:
    """A share of an amount in whole cents, half a cent rounded up."""
    return (cents * percent + 50) // 100


def total(lines: Sequence[Line], discount_code: str | None) -> Totals:
    """What a cart costs: the discount comes off first, VAT is due on what remains.

    A code counts only while the cart is worth its minimum, so taking goods out again may lose the discount.
    """
    subtotal = sum(line.line_cents for line in lines)
    percent, minimum = DISCOUNTS[discount_code] if discount_code else (0, 0)
    discount = percent_of(subtotal, percent) if subtotal >= minimum else 0
    vat = percent_of(subtotal - discount, VAT_PERCENT)
    return Totals(subtotal, discount, vat, subtotal - discount + vat)


class Checkout:
    """One shop in one SQLite database. Each public method is the operation of that name in the contract."""

    def __init__(self, database: str = ":memory:") -> None:
        self._lock = threading.RLock()
        self._db = sqlite3.connect(database, check_same_thread=False)
        self._db.executescript(TABLES)

    def list_products(self) -> tuple[Product, ...]:
        return PRODUCTS

    def create_cart(self) -> Cart:
        cart_id = secrets.token_hex(16)
        with self._lock, self._db:
            self._db.execute("INSERT INTO carts (cart_id) VALUES (?)", (cart_id,))
            return self.get_cart(cart_id)

    def get_cart(self, cart_id: str) -> Cart:
        with self._lock:
            row = self._db.execute("SELECT discount_code FROM carts WHERE cart_id = ?", (cart_id,)).fetchone()
            if row is None:
                raise Refused("not_found", "There is no such cart.")
            items = self._db.execute("SELECT sku, quantity FROM items WHERE cart_id = ?", (cart_id,))
            quantities: dict[str, int] = dict(items.fetchall())
        lines = tuple(
            Line(product.sku, product.name, quantity, product.price_cents, quantity * product.price_cents)
            for product in PRODUCTS
            if (quantity := quantities.get(product.sku, 0))
        )
        return Cart(cart_id, CURRENCY, lines, row[0], total(lines, row[0]))

    def put_item(self, cart_id: str, sku: str, body: ItemQuantity) -> Cart:
        with self._lock, self._db:
            self._open_cart(cart_id)
            if sku not in {product.sku for product in PRODUCTS}:
                raise Refused("not_found", "There is no such product.")
            self._db.execute("DELETE FROM items WHERE cart_id = ? AND sku = ?", (cart_id, sku))
            if body.quantity:
                self._db.execute("INSERT INTO items VALUES (?, ?, ?)", (cart_id, sku, body.quantity))
            return self.get_cart(cart_id)

    def put_discount(self, cart_id: str, body: DiscountCode) -> Cart:
        with self._lock, self._db:
            cart = self._open_cart(cart_id)
            if body.code not in DISCOUNTS:
                raise Refused("unknown_discount", "There is no such discount code.")
            _, minimum = DISCOUNTS[body.code]
            if cart.totals.subtotal_cents < minimum:
                raise Refused("discount_minimum", f"This code needs goods for at least {minimum} cents.")
            self._db.execute("UPDATE carts SET discount_code = ? WHERE cart_id = ?", (body.code, cart_id))
            return self.get_cart(cart_id)

    def place_order(self, cart_id: str) -> Order:
        with self._lock, self._db:
            cart = self._open_cart(cart_id)
            if not cart.lines:
                raise Refused("cart_empty", "An empty cart cannot be ordered.")
            order = Order(secrets.token_hex(16), cart.currency, cart.lines, cart.discount_code, cart.totals)
            self._db.execute("UPDATE carts SET closed = 1 WHERE cart_id = ?", (cart_id,))
            self._db.execute("INSERT INTO orders VALUES (?, ?)", (order.order_id, json.dumps(asdict(order))))
            return order

    def get_order(self, order_id: str) -> Order:
        with self._lock:
            row = self._db.execute("SELECT body FROM orders WHERE order_id = ?", (order_id,)).fetchone()
        if row is None:
            raise Refused("not_found", "There is no such order.")
        body = json.loads(row[0])
        lines = tuple(Line(**line) for line in body.pop("lines"))
        return Order(**{**body, "lines": lines, "totals": Totals(**body["totals"])})

    def _open_cart(self, cart_id: str) -> Cart:
        cart = self.get_cart(cart_id)
        if self._db.execute("SELECT closed FROM carts WHERE cart_id = ?", (cart_id,)).fetchone()[0]:
            raise Refused("cart_closed", "This cart has been ordered already.")
        return cart
