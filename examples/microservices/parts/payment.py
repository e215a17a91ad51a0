"""Money between people: a ledger of transfers in whole cents, of which every balance is the sum."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

from frame import Refused, Request, Route, serve

BANK = ""  # Nobody's name: what comes in from outside is owed by the bank.


class Transfer(NamedTuple):
    """Money that went from one account to another, so that all balances together are always zero."""

    source: str
    target: str
    amount_cents: int


ledger: dict[tuple[str, str], Transfer] = {}  # Payer and the payer's own key -> transfer.
lock = threading.Lock()


def balance_cents(name: str) -> int:
    return sum(one.amount_cents * ((one.target == name) - (one.source == name)) for one in ledger.values())


def record(payer: str, key: str, transfer: Transfer) -> Any:
    """Book a transfer once, however often it is asked for: a client that heard no answer may ask again."""
    if type(transfer.amount_cents) is not int or transfer.amount_cents <= 0:
        raise Refused(422, "an amount in whole cents above zero is needed")
    with lock:
        known = ledger.get((payer, key))
        if known not in (None, transfer):
            raise Refused(409, "this key was used for another payment")
        if known is None and transfer.source != BANK and balance_cents(transfer.source) < transfer.amount_cents:
            raise Refused(402, "the balance is too low")
        ledger[payer, key] = transfer
        return {"balance_cents": balance_cents(payer)}


def deposit(request: Request) -> Any:
    return record(request.user, str(request.body["key"]), Transfer(BANK, request.user, request.body["amount_cents"]))


def pay(request: Request) -> Any:
    target = str(request.body["to"])
    if target in (BANK, request.user):
        raise Refused(422, "somebody else has to be paid")
    return record(request.user, str(request.body["key"]), Transfer(request.user, target, request.body["amount_cents"]))


def balance(request: Request) -> Any:
    with lock:
        return {"balance_cents": balance_cents(request.user)}


ROUTES = {
    "POST /payments/deposits": Route("member", deposit),
    "POST /payments": Route("member", pay),
    "GET /payments/balance": Route("member", balance),
}


def main() -> None:
    serve(ROUTES)
