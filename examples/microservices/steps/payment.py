"""Backend engineer: builds the payment service and checks it over HTTP, also with everybody paying at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from service import Caller, holds, pack, publish, running

PEOPLE = ("anna", "bert", "cleo")
START_CENTS = 10_000


def main() -> None:
    pack("payment")
    with running("payment") as port:
        callers = {name: Caller(port, **{"X-User": name}) for name in PEOPLE}
        anna = callers["anna"]
        for caller in callers.values():
            caller.expect(200, "POST /payments/deposits", key="first", amount_cents=START_CENTS)
        for _ in range(3):
            left = anna.expect(200, "POST /payments", key="rent", to="bert", amount_cents=2_500)
        holds("a payment that is asked for three times is made once", left == {"balance_cents": 7_500})
        anna.expect(409, "POST /payments", key="rent", to="cleo", amount_cents=2_500)
        anna.expect(402, "POST /payments", key="car", to="bert", amount_cents=7_501)
        for amount in (0, -5, 1.5, True, "5", None):
            anna.expect(422, "POST /payments", key="odd", to="bert", amount_cents=amount)
        holds("what is refused moves no money", anna.expect(200, "GET /payments/balance") == left)

        def pay_round(turn: int) -> None:
            payer, payee = PEOPLE[turn % 3], PEOPLE[(turn + 1) % 3]
            Caller(port, **{"X-User": payer}).expect(
                200, "POST /payments", key=f"turn {turn}", to=payee, amount_cents=turn + 1
            )

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(pay_round, range(90)))
        balances = [caller.expect(200, "GET /payments/balance")["balance_cents"] for caller in callers.values()]
        holds("90 payments at once, and no cent is lost", sum(balances) == len(PEOPLE) * START_CENTS)
        publish("payment", anna)


if __name__ == "__main__":
    main()
