"""What somebody tells about themselves: a profile, of which strangers see only the name."""

from __future__ import annotations

from typing import Any

from frame import Refused, Request, Route, serve

profiles: dict[str, dict[str, str]] = {}


def save(request: Request) -> Any:
    display_name, email = str(request.body["display_name"]).strip(), str(request.body["email"])
    if not 1 <= len(display_name) <= 80 or email.count("@") != 1:
        raise Refused(422, "a display name of 1 to 80 characters and an e-mail address are needed")
    profiles[request.user] = {"display_name": display_name, "email": email}
    return profiles[request.user]


def of(name: str) -> dict[str, str]:
    if name not in profiles:
        raise Refused(404, f"{name} has no profile")
    return profiles[name]


def mine(request: Request) -> Any:
    return of(request.user)


def shown(request: Request) -> Any:
    return {"display_name": of(request.names["name"])["display_name"]}


ROUTES = {
    "PUT /users/me": Route("member", save),
    "GET /users/me": Route("member", mine),
    "GET /users/{name}": Route("public", shown),
}


def main() -> None:
    serve(ROUTES)
