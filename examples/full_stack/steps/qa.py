"""QA engineer: starts the service on a free port, checks page, contract and money together, and reports."""

from __future__ import annotations

import json
import random
import re
import statistics
import time
import unittest
from decimal import ROUND_HALF_UP, Decimal
from html.parser import HTMLParser
from typing import Any, ClassVar

from contract import Operation, load, need, operations, say, violations, write
from live import Answer, Site, running_site

RANDOM_CARTS = 40


class Acceptance(unittest.TestCase):
    """What every check needs: the running site and the contract."""

    site: ClassVar[Site]
    api: ClassVar[dict[str, Any]]
    seed: ClassVar[int]
    answered: ClassVar[set[str]] = set()

    def ask(self, name: str, expected: int | None = None, body: Any = None, **ids: str) -> Any:
        """Call an operation by its name; whatever it answers must be what the contract promises."""
        op = self.operation(name)
        answer = self.site.call(op.method, op.path.format(**ids), body)
        self.answered.add(name)
        self.assertEqual(answer.status, expected or op.success, f"{name} said {answer.body!r}")
        self.assertIn(answer.status, op.answers, f"{name} answers with a status that it does not promise")
        self.assertEqual(violations(answer.json(), op.answers[answer.status], self.api), [])
        return answer.json()

    def operation(self, name: str) -> Operation:
        return next(op for op in operations(self.api) if op.name == name)

    def filled_cart(self) -> str:
        cart_id: str = self.ask("create_cart")["cart_id"]
        for sku, quantity in (("TEA-ASSAM", 2), ("POT-IRON", 1)):
            self.ask("put_item", body={"quantity": quantity}, cart_id=cart_id, sku=sku)
        return cart_id


class Links(HTMLParser):
    """Collects what a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]


class ThePage(Acceptance):
    def load_page(self) -> tuple[Answer, dict[str, str]]:
        """The page, and everything it loads: its links, and what its scripts import."""
        page = self.site.call("GET", "/")
        links = Links()
        links.feed(page.body.decode())
        waiting, loaded = links.found, dict[str, str]()
        while waiting:
            name = waiting.pop()
            answer = self.site.call("GET", f"/{name}")
            self.assertEqual(answer.status, 200, f"the page loads {name}, which is not served")
            loaded[name] = answer.body.decode()
            waiting += [found for found in re.findall(r'from "\./(.+?)"', loaded[name]) if found not in loaded]
        return page, loaded

    def test_everything_that_the_page_loads_is_served(self) -> None:
        page, loaded = self.load_page()
        self.assertTrue(page.headers["content-type"].startswith("text/html"))
        self.assertLessEqual({"app.js", "api.js", "texts.js", "style.css"}, loaded.keys())

    def test_the_page_asks_only_for_what_the_contract_has(self) -> None:
        calls = re.findall(r'send\("(\w+)", `(.+?)`', self.load_page()[1]["api.js"])
        paths = {(method, re.sub(r"\$\{encodeURIComponent\((\w+)\)\}", r"{\1}", path)) for method, path in calls}
        self.assertEqual(paths, {(op.method, op.path) for op in operations(self.api)})

    def test_the_page_shows_the_words_of_the_design_note(self) -> None:
        page, loaded = self.load_page()
        note = need("docs/design.md").read_text(encoding="utf-8")
        texts = json.loads(loaded["texts.js"].split(" = ")[1].rstrip(";\n"))
        for key in texts.keys() - {"title"}:
            self.assertIn(f"| {key} | {texts[key]} |", note)
        self.assertIn(texts["state_loading"], page.body.decode())


class TheContract(Acceptance):
    def test_a_customer_gets_from_the_shelf_to_an_order(self) -> None:
        self.assertEqual(self.ask("list_products"), self.api["x-rules"]["products"])
        cart_id = self.filled_cart()
        cart = self.ask("put_discount", body={"code": "POT25"}, cart_id=cart_id)
        self.assertEqual(cart, self.ask("get_cart", cart_id=cart_id))
        order = self.ask("place_order", cart_id=cart_id)
        self.assertEqual(order["totals"], cart["totals"])
        self.assertEqual(order, self.ask("get_order", order_id=order["order_id"]))

    def test_an_order_is_placed_once(self) -> None:
        cart_id = self.filled_cart()
        self.ask("place_order", cart_id=cart_id)
        self.assertEqual(self.ask("place_order", 409, cart_id=cart_id)["code"], "cart_closed")
        late = self.ask("put_item", 409, body={"quantity": 1}, cart_id=cart_id, sku="CUP-SMALL")
        self.assertEqual(late["code"], "cart_closed")

    def test_what_cannot_be_is_refused_with_its_reason(self) -> None:
        cart_id, nobody = self.ask("create_cart")["cart_id"], "0" * 32
        refusals = [
            ("place_order", "cart_empty", None, {"cart_id": cart_id}),
            ("put_discount", "discount_minimum", {"code": "POT25"}, {"cart_id": cart_id}),
            ("put_discount", "unknown_discount", {"code": "FREE"}, {"cart_id": cart_id}),
            ("put_item", "not_found", {"quantity": 1}, {"cart_id": cart_id, "sku": "TEA-NONE"}),
            ("get_cart", "not_found", None, {"cart_id": nobody}),
            ("get_order", "not_found", None, {"order_id": nobody}),
        ]
        for name, code, body, ids in refusals:
            with self.subTest(operation=name, code=code):
                self.assertEqual(self.ask(name, self.api["x-errors"][code], body, **ids)["code"], code)

    def test_a_body_that_is_not_what_was_asked_for_changes_nothing(self) -> None:
        cart_id = self.filled_cart()
        before = self.ask("get_cart", cart_id=cart_id)
        bodies: tuple[Any, ...] = ({}, [], "2", {"quantity": "2"}, {"quantity": True}, {"quantity": -1}, {"price": 0})
        for body in bodies:
            with self.subTest(body=body):
                answer = self.ask("put_item", 422, body, cart_id=cart_id, sku="POT-IRON")
                self.assertEqual(answer["code"], "invalid_body")
        self.assertEqual(self.ask("get_cart", cart_id=cart_id), before)


class TheMoney(Acceptance):
    def expected_totals(self, quantities: dict[str, int], code: str) -> dict[str, int]:
        """The same sum done another way: in decimals, rounded as a merchant does."""
        rules = self.api["x-rules"]
        discount = next(one for one in rules["discounts"] if one["code"] == code)
        subtotal = sum(one["price_cents"] * quantities[one["sku"]] for one in rules["products"])
        percent = discount["percent"] if subtotal >= discount["minimum_cents"] else 0
        off = _rounded(Decimal(subtotal) * percent / 100)
        vat = _rounded(Decimal(subtotal - off) * rules["vat_percent"] / 100)
        total = subtotal - off + vat
        return {"subtotal_cents": subtotal, "discount_cents": off, "vat_cents": vat, "total_cents": total}

    def test_random_carts_cost_what_they_should(self) -> None:
        dice = random.Random(self.seed)
        for _ in range(RANDOM_CARTS):
            quantities = {one["sku"]: dice.randint(0, 99) for one in self.api["x-rules"]["products"]}
            cart_id = self.ask("create_cart")["cart_id"]
            for sku, quantity in quantities.items():
                self.ask("put_item", body={"quantity": quantity}, cart_id=cart_id, sku=sku)
            cart = self.ask("put_discount", body={"code": "WELCOME10"}, cart_id=cart_id)
            self.assertEqual(cart["totals"], self.expected_totals(quantities, "WELCOME10"), f"seed {self.seed}")

    def test_a_discount_is_lost_with_the_goods_it_was_given_for(self) -> None:
        cart_id = self.filled_cart()
        cart = self.ask("put_discount", body={"code": "POT25"}, cart_id=cart_id)
        self.assertGreater(cart["totals"]["discount_cents"], 0)
        cart = self.ask("put_item", body={"quantity": 0}, cart_id=cart_id, sku="POT-IRON")
        self.assertEqual(cart["totals"]["discount_cents"], 0)


def _rounded(amount: Decimal) -> int:
    return int(amount.quantize(Decimal(1), ROUND_HALF_UP))


class Report(unittest.TestResult):
    """Says each check as it ends, and keeps its name, outcome and time."""

    def __init__(self) -> None:
        super().__init__()
        self.checks: list[dict[str, Any]] = []

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.problems_before, self.started = self.problems(), time.perf_counter()

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        outcome = "ok" if self.problems() == self.problems_before else "FAILED"
        duration_s = time.perf_counter() - self.started
        name = test.id().rsplit(".", 1)[1].removeprefix("test_").replace("_", " ")
        self.checks.append({"name": name, "outcome": outcome, "duration_s": round(duration_s, 4)})
        say(f"{outcome:6} {name} ({duration_s:.2f} s)")

    def problems(self) -> int:
        return len(self.failures) + len(self.errors)


def main() -> None:
    Acceptance.api = load()
    Acceptance.seed = random.SystemRandom().randrange(10**6)
    checks = unittest.TestSuite(
        unittest.defaultTestLoader.loadTestsFromTestCase(case) for case in (ThePage, TheContract, TheMoney)
    )
    report = Report()
    started = time.perf_counter()
    with running_site() as Acceptance.site:
        say(f"service is up on port {Acceptance.site.port}")
        checks.run(report)
    duration_s = time.perf_counter() - started
    for _, traceback in report.failures + report.errors:
        say(traceback)

    unanswered = {op.name for op in operations(Acceptance.api)} - Acceptance.answered
    times_ms = [1000 * seconds for seconds in Acceptance.site.request_s]
    median_ms = round(statistics.median(times_ms), 2)
    passed = sum(check["outcome"] == "ok" for check in report.checks)
    summary = {
        "passed": passed,
        "failed": len(report.checks) - passed,
        "operations_answered": sorted(Acceptance.answered),
        "operations_unanswered": sorted(unanswered),
        "requests": len(times_ms),
        "request_ms": {"median": median_ms, "slowest": round(max(times_ms), 2)},
        "duration_s": round(duration_s, 3),
        "seed": Acceptance.seed,
        "checks": report.checks,
    }
    write("reports/qa.json", json.dumps(summary, indent=2) + "\n")
    say(
        f"reports/qa.json: {passed} of {len(report.checks)} checks passed, {len(Acceptance.answered)} operations "
        f"answered and {len(unanswered)} not, {len(times_ms)} requests, median {median_ms} ms"
    )
    raise SystemExit(bool(unanswered) or passed < len(report.checks))


if __name__ == "__main__":
    main()
