"""Who somebody is: accounts with hashed passwords, and signed tokens that end by themselves."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from typing import Any

from frame import Refused, Request, Route, serve

ROUNDS = 600_000  # Source: OWASP Password Storage Cheat Sheet, PBKDF2-HMAC-SHA256.
TOKEN_LIFE_S = 900
KEY = secrets.token_bytes(32)

accounts: dict[str, tuple[bytes, bytes]] = {}  # Name -> salt, hash.


def hashed(password: str, salt: bytes) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ROUNDS)


def signature(claim: str) -> str:
    return hmac.new(KEY, claim.encode(), "sha256").hexdigest()


def register(request: Request) -> Any:
    name, password = str(request.body["name"]), str(request.body["password"])
    if not (name.isascii() and name.isalnum()) or len(password) < 8:
        raise Refused(422, "a name of letters and digits, and a password of at least 8 characters, are needed")
    salt = secrets.token_bytes(16)
    # setdefault decides in one step who came first, so that two registrations cannot share a name.
    mine = (salt, hashed(password, salt))
    if accounts.setdefault(name, mine) is not mine:
        raise Refused(409, "this name is taken")
    return {"name": name}


def sign_in(request: Request) -> Any:
    name = str(request.body["name"])
    # A stranger's password is hashed too: the time of the answer does not tell which names exist.
    salt, expected = accounts.get(name, (b"", b""))
    if not hmac.compare_digest(hashed(str(request.body["password"]), salt), expected):
        raise Refused(401, "name or password is wrong")
    claim = f"{name}.{int(time.time()) + TOKEN_LIFE_S}"
    return {"token": f"{claim}.{signature(claim)}"}


def check(request: Request) -> Any:
    claim, _, signed = str(request.body["token"]).rpartition(".")
    name, _, ends_at = claim.partition(".")
    if not hmac.compare_digest(signature(claim).encode(), signed.encode()) or int(ends_at) < time.time():
        raise Refused(401, "the token is not valid")
    return {"user": name}


ROUTES = {
    "POST /auth/accounts": Route("public", register),
    "POST /auth/tokens": Route("public", sign_in),
    "POST /auth/check": Route("internal", check),
}


def main() -> None:
    serve(ROUTES)
