"""The fake agent: a command that does as it is told and prints what a real client would. ``fake_agent.py`` says how."""

from __future__ import annotations

import sys


def main() -> None:
    """Be the client that the first argument names."""
    dialect, *arguments = sys.argv[1:] or [""]
    if dialect == "claude":
        from fakeagent.claude import run
    elif dialect == "codex":
        from fakeagent.codex import run
    else:
        sys.exit("usage: fake_agent.py claude|codex ARGUMENTS")
    sys.exit(run(arguments))
