"""Backend engineer: builds the auth service and checks it over HTTP."""

from __future__ import annotations

from service import Caller, holds, pack, publish, running

ANNA = {"name": "anna", "password": "correct horse"}


def main() -> None:
    pack("auth")
    with running("auth") as port:
        auth = Caller(port)
        auth.expect(200, "POST /auth/accounts", **ANNA)
        auth.expect(409, "POST /auth/accounts", **ANNA)
        auth.expect(422, "POST /auth/accounts", name="bert", password="short")
        auth.expect(422, "POST /auth/accounts", name="bert")
        holds("a name belongs to whoever registered it first")
        auth.expect(401, "POST /auth/tokens", name="anna", password="wrong horse")
        auth.expect(401, "POST /auth/tokens", name="nobody", password="correct horse")
        token = auth.expect(200, "POST /auth/tokens", **ANNA)["token"]
        holds("a token names who signed in", auth.expect(200, "POST /auth/check", token=token)["user"] == "anna")
        for forged in (token.replace("anna", "bert"), token[:-1], "", "a.b.c"):
            auth.expect(401, "POST /auth/check", token=forged)
        holds("a token that was changed is worth nothing")
        publish("auth", auth)


if __name__ == "__main__":
    main()
