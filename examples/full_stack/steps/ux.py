"""UX designer: derives screens, states, texts and colours from docs/api.json and leaves them in docs/design.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from contract import load, operations, say, write

LEAST_CONTRAST = 4.5  # WCAG 2.2, success criterion 1.4.3 (AA) for text.

# State of the page -> the operation whose answer leads there, and what the page says.
STATES = {
    "loading": ("list_products", "Opening the shop …"),
    "empty": ("create_cart", "Your cart is empty. Take something you like."),
    "ready": ("put_item", "Prices without VAT; it is added below."),
    "placed": ("place_order", "Thank you. Your order number is"),
}
# Error code of the contract -> what a customer reads.
REFUSALS = {
    "not_found": "We could not find that any more. Please reload the page.",
    "cart_closed": "This cart has been ordered already. Reload the page for a new one.",
    "cart_empty": "Put something into the cart first.",
    "discount_minimum": "This code needs a larger order.",
    "invalid_body": "Please check what you typed.",
    "unknown_discount": "We do not know this code.",
}
LABELS = {
    "quantity": "Quantity",
    "code": "Discount code",
    "apply": "Apply",
    "order": "Order now",
    "subtotal_cents": "Subtotal",
    "discount_cents": "Discount",
    "vat_cents": "VAT",
    "total_cents": "Total",
    "offline": "The shop does not answer. Please try again.",
}
# Name -> colour of the text, colour of the ground it stands on.
COLOURS = {
    "text": ("#1f2a24", "#fbfaf5"),
    "quiet": ("#5b665f", "#fbfaf5"),
    "button": ("#ffffff", "#2f6b4a"),
    "refusal": ("#8f1d1d", "#fdf0ee"),
}


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, 0 to 1. Source: WCAG 2.2, definition of relative luminance."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, 1 to 21. Source: WCAG 2.2, definition of contrast ratio."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def wireframe(api: dict[str, Any]) -> list[str]:
    """The page in characters, with the shop's own goods and the totals that the contract names."""
    width = 50
    goods = [
        f"{product['name']:<26} {product['price_cents'] / 100:>8.2f} [ - 0 + ]"
        for product in api["x-rules"]["products"]
    ]
    totals = [f"{LABELS[name]:>35} {'0.00':>8}" for name in api["components"]["schemas"]["Totals"]["properties"]]
    rows = [api["info"]["title"], "", *goods, "", f"{LABELS['code']} [          ] ({LABELS['apply']})", *totals, ""]
    rows.append(f"{'(' + LABELS['order'] + ')':>44}")
    edge = "+" + "-" * (width + 2) + "+"
    return ["```", edge, *(f"| {row:<{width}} |" for row in rows), edge, "```"]


def table(*columns: str, rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (columns, ("---",) * len(columns), *rows)]


def main() -> None:
    api = load()
    known = {op.name for op in operations(api)}
    if unknown := {operation for operation, _ in STATES.values()} - known:
        raise SystemExit(f"states for operations that the contract does not have: {', '.join(sorted(unknown))}")
    if silent := api["x-errors"].keys() - REFUSALS.keys():
        raise SystemExit(f"no words yet for what the service may refuse: {', '.join(sorted(silent))}")

    ratios = {name: contrast(*pair) for name, pair in COLOURS.items()}
    for name, ratio in ratios.items():
        say(f"contrast of {name}: {ratio:.1f}:1")
    if faint := [name for name, ratio in ratios.items() if ratio < LEAST_CONTRAST]:
        raise SystemExit(f"too faint to read: {', '.join(faint)}")

    frame = wireframe(api)
    texts = {f"state_{state}": text for state, (_, text) in STATES.items()}
    texts |= {code: REFUSALS[code] for code in api["x-errors"]} | LABELS
    note = [f"# {api['info']['title']}: design note", "", "Derived from docs/api.json.", "", "## Wireframe", "", *frame]
    note += ["", "## States", "", "The page is always in exactly one of these; a refusal leaves it where it is.", ""]
    note += table("state", "reached by", rows=[(state, operation) for state, (operation, _) in STATES.items()])
    note += ["", "## Texts", "", *table("key", "text", rows=list(texts.items()))]
    note += ["", "## Colours", "", f"Each pair reaches a contrast of {LEAST_CONTRAST}:1.", ""]
    pairs = [(name, *pair, f"{ratios[name]:.1f}:1") for name, pair in COLOURS.items()]
    note += table("name", "text", "ground", "contrast", rows=pairs)
    write("docs/design.md", "\n".join([*note, ""]))
    say("\n".join(frame))
    say(
        f"docs/design.md: {len(STATES)} states, {len(texts)} texts for {len(api['x-errors'])} refusals and all labels, "
        f"least contrast {min(ratios.values()):.1f}:1"
    )


if __name__ == "__main__":
    main()
