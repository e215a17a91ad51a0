"""API engineer: joins the routes of the three services, builds the gateway, and walks through all of it."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path

from service import SERVICES, Caller, holds, pack, running, say

BEHIND = ("auth", "user", "payment")
REPORT = Path("reports/end_to_end.json")


def join_routes() -> dict[str, tuple[str, str]]:
    """Route -> the service that answers it and who may call it. Two services may not claim the same."""
    table: dict[str, tuple[str, str]] = {}
    for name in BEHIND:
        published = SERVICES / f"{name}.json"
        if not published.is_file():
            raise SystemExit(f"{published} is missing: the step {name} has not run here")
        for route, access in json.loads(published.read_text(encoding="utf-8")).items():
            if route in table:
                raise SystemExit(f"{route} is claimed by {table[route][0]} and by {name}")
            table[route] = (name, access)
            say(f"{route} -> {name}, {access}")
    return table


def walk_through(port: int) -> int:
    """Two people meet through the gateway; the number of calls it took."""
    stranger, people = Caller(port), {}
    for name in ("anna", "bert"):
        account = {"name": name, "password": f"{name} has a secret"}
        stranger.expect(200, "POST /auth/accounts", **account)
        token = stranger.expect(200, "POST /auth/tokens", **account)["token"]
        people[name] = Caller(port, Authorization=f"Bearer {token}")
        people[name].expect(200, "PUT /users/me", display_name=name.title(), email=f"{name}@example.org")
    anna, bert = people["anna"], people["bert"]
    holds("members find each other", anna.expect(200, "GET /users/bert") == {"display_name": "Bert"})
    anna.expect(200, "POST /payments/deposits", key="salary", amount_cents=5_000)
    anna.expect(200, "POST /payments", key="dinner", to="bert", amount_cents=1_995)
    balances = [person.expect(200, "GET /payments/balance")["balance_cents"] for person in (anna, bert)]
    holds("money goes from one service's member to another's", balances == [3_005, 1_995])
    stranger.expect(401, "GET /payments/balance")
    Caller(port, **{"X-User": "anna"}).expect(401, "GET /payments/balance")
    holds("who has not signed in gets no balance, whatever name they claim")
    stranger.expect(404, "POST /auth/check", token="x")
    stranger.expect(404, "GET /nowhere")
    holds("internal routes stay inside")
    return stranger.checks + anna.checks + bert.checks


def main() -> None:
    table = join_routes()
    pack("gateway", table)
    started = time.perf_counter()
    with ExitStack() as stack:
        ports = {name: stack.enter_context(running(name)) for name in BEHIND}
        options = [option for name, port in ports.items() for option in ("--at", f"{name}={port}")]
        calls = walk_through(stack.enter_context(running("gateway", *options)))
    duration_s = round(time.perf_counter() - started, 3)
    report = {"services": [*BEHIND, "gateway"], "routes": len(table), "calls": calls, "duration_s": duration_s}
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    say(f"{REPORT}: 4 services together, {len(table)} routes, {calls} calls answered as expected in {duration_s} s")


if __name__ == "__main__":
    main()
