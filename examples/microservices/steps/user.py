"""Backend engineer: builds the user service and checks it over HTTP."""

from __future__ import annotations

from service import Caller, holds, pack, publish, running


def main() -> None:
    pack("user")
    with running("user") as port:
        anna = Caller(port, **{"X-User": "anna"})
        anna.expect(404, "GET /users/me")
        profile = anna.expect(200, "PUT /users/me", display_name=" Anna A. ", email="anna@example.org")
        holds("a profile is kept as it was saved", anna.expect(200, "GET /users/me") == profile)
        seen = anna.expect(200, "GET /users/anna")
        holds("strangers see the name and not the address", seen == {"display_name": "Anna A."})
        anna.expect(422, "PUT /users/me", display_name="", email="anna@example.org")
        anna.expect(422, "PUT /users/me", display_name="Anna", email="nowhere")
        anna.expect(404, "GET /users/bert")
        holds("what is refused changes nothing", anna.expect(200, "GET /users/me") == profile)
        publish("user", anna)


if __name__ == "__main__":
    main()
