"""Software architect: turns the feature request into an OpenAPI 3.1 document, the contract of all later steps."""

from __future__ import annotations

import json
from typing import Any

from contract import CONTRACT, need, operations, resolve, say, write

Schema = dict[str, Any]

# Code of a refusal -> status of the answer that carries it.
ERRORS = {
    "not_found": 404,
    "cart_closed": 409,
    "cart_empty": 409,
    "discount_minimum": 409,
    "invalid_body": 422,
    "unknown_discount": 422,
}
CENTS: Schema = {"type": "integer", "minimum": 0}
TEXT: Schema = {"type": "string", "maxLength": 200}
ID: Schema = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
SKU: Schema = {"type": "string", "pattern": "^[A-Z]+-[A-Z0-9]+$"}
CODE: Schema = {"type": "string", "pattern": "^[A-Z0-9]{1,20}$"}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def many(name: str) -> Schema:
    return {"type": "array", "items": ref(name)}


def record(**properties: Schema) -> Schema:
    """An object that has all of these properties and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def operation(name: str, status: int, answer: Schema, errors: str = "", takes: str = "") -> Schema:
    """One operation; ``errors`` are the codes with which it may refuse, separated by blanks."""
    responses = {str(status): ("Done.", answer)}
    for code in errors.split():
        same_status = [other for other in errors.split() if ERRORS[other] == ERRORS[code]]
        responses[str(ERRORS[code])] = (f"Refused: {' or '.join(same_status)}.", ref("Error"))
    document: Schema = {"operationId": name}
    if takes:
        document["requestBody"] = {"required": True, "content": {"application/json": {"schema": ref(takes)}}}
    document["responses"] = {
        key: {"description": text, "content": {"application/json": {"schema": schema}}}
        for key, (text, schema) in responses.items()
    }
    return document


def path(parameters: dict[str, Schema], **methods: Schema) -> Schema:
    places = [{"name": name, "in": "path", "required": True, "schema": schema} for name, schema in parameters.items()]
    return {"parameters": places, **methods} if places else methods


def design(feature: dict[str, Any]) -> dict[str, Any]:
    """The whole document. The shop's rules travel in it too, so that no later step has a second source."""
    cart = ref("Cart")
    contents = {"currency": TEXT, "lines": many("Line"), "discount_code": {**CODE, "type": ["string", "null"]}}
    return {
        "openapi": "3.1.0",
        "info": {"title": feature["title"], "version": "1.0.0"},
        "paths": {
            "/api/products": path({}, get=operation("list_products", 200, many("Product"))),
            "/api/carts": path({}, post=operation("create_cart", 201, cart)),
            "/api/carts/{cart_id}": path({"cart_id": ID}, get=operation("get_cart", 200, cart, "not_found")),
            "/api/carts/{cart_id}/items/{sku}": path(
                {"cart_id": ID, "sku": SKU},
                put=operation("put_item", 200, cart, "not_found cart_closed invalid_body", takes="ItemQuantity"),
            ),
            "/api/carts/{cart_id}/discount": path(
                {"cart_id": ID},
                put=operation(
                    "put_discount",
                    200,
                    cart,
                    "not_found cart_closed discount_minimum invalid_body unknown_discount",
                    takes="DiscountCode",
                ),
            ),
            "/api/carts/{cart_id}/checkout": path(
                {"cart_id": ID},
                post=operation("place_order", 201, ref("Order"), "not_found cart_closed cart_empty"),
            ),
            "/api/orders/{order_id}": path(
                {"order_id": ID}, get=operation("get_order", 200, ref("Order"), "not_found")
            ),
        },
        "components": {
            "schemas": {
                "Product": record(sku=SKU, name=TEXT, price_cents=CENTS),
                "Line": record(
                    sku=SKU, name=TEXT, quantity={**CENTS, "minimum": 1}, price_cents=CENTS, line_cents=CENTS
                ),
                "Totals": record(subtotal_cents=CENTS, discount_cents=CENTS, vat_cents=CENTS, total_cents=CENTS),
                "Cart": record(cart_id=ID, **contents, totals=ref("Totals")),
                "Order": record(order_id=ID, **contents, totals=ref("Totals")),
                "ItemQuantity": record(quantity={"type": "integer", "minimum": 0, "maximum": 99}),
                "DiscountCode": record(code=CODE),
                "Error": record(code={"type": "string", "enum": list(ERRORS)}, message=TEXT),
            }
        },
        "x-errors": ERRORS,
        "x-rules": {name: feature[name] for name in ("currency", "vat_percent", "products", "discounts")},
    }


def references(part: Any) -> list[Schema]:
    """Every reference below a part of the document."""
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    here = [part] if isinstance(part, dict) and "$ref" in part else []
    return here + [found for value in inner for found in references(value)]


def main() -> None:
    feature = json.loads(need("feature.json").read_text(encoding="utf-8"))
    say(f"asked for: {feature['title']}, {len(feature['products'])} products, {feature['vat_percent']} % VAT")
    api = design(feature)
    for op in operations(api):
        say(f"designed {op.method:4} {op.path} -> {', '.join(map(str, op.answers))}")
    links = references(api)
    for link in links:
        resolve(link, api)
    write(CONTRACT, json.dumps(api, indent=2) + "\n")
    schemas = len(api["components"]["schemas"])
    say(f"{CONTRACT}: {len(operations(api))} operations, {schemas} schemas, {len(links)} references, all resolved")


if __name__ == "__main__":
    main()
