"""QA engineer: runs all tests against the old code and the new, measures both, and tries what was to change."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from auth_refactor import old_formats
from db_refactor import open_queries
from refactor import BEFORE, outcomes, red, say
from ui_refactor import copies

REPORT = Path("reports/regression.json")
INJECTION = """
from legacy import db as shop
db = shop.connect()
shop.add_customer(db, "Anna", "Oslo")
print(len(shop.find_customers(db, "nobody' OR '1'='1")))
"""


def measure(folder: Path) -> dict[str, int]:
    """What the three steps were to make fewer of."""
    sources = {}
    for module in ("auth", "db", "ui"):
        path = folder / "legacy" / f"{module}.py"
        if not path.is_file():
            raise SystemExit(f"{path} is missing: the step {module}_refactor has not run here")
        sources[module] = path.read_text(encoding="utf-8")
    return {
        "old formats in auth": len(old_formats(sources["auth"])),
        "queries without parameters in db": len(open_queries(sources["db"])),
        "copied fragments in ui": sum(len(places) for places in copies(sources["ui"]).values()),
    }


def rows_by_injection(folder: Path) -> int:
    """How many customers a stranger sees with SQL in the name that is searched for."""
    run = subprocess.run(
        [sys.executable, "-B", "-c", INJECTION], cwd=folder, capture_output=True, text=True, check=True
    )
    return int(run.stdout)


def main() -> None:
    before, after = measure(BEFORE), measure(Path())
    for name in before:
        say(f"{name}: {before[name]} -> {after[name]}")
    injected = {"before": rows_by_injection(BEFORE), "after": rows_by_injection(Path())}
    say(f"customers seen by SQL injection: {injected['before']} -> {injected['after']}")
    old, new = outcomes(BEFORE), outcomes(Path())
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    worse = [name for name in before if after[name] > before[name]]
    passed = not (red(new) or changed or worse or injected["after"])
    report = {
        "passed": passed,
        "tests": len(new),
        "failing": red(new),
        "outcome_changed": changed,
        "measures": {name: {"before": before[name], "after": after[name]} for name in before},
        "customers_seen_by_injection": injected,
    }
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    total = (sum(before.values()), sum(after.values()))
    say(
        f"{REPORT}: {len(new) - len(red(new))} of {len(new)} tests green, {len(changed)} behave otherwise than before, "
        f"{total[0]} old patterns down to {total[1]}"
    )
    raise SystemExit(not passed)


if __name__ == "__main__":
    main()
