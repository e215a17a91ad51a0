"""Makes the pictures of the README from a real run: ``.venv/bin/python docs/pictures/record.py``.

Runs the demo's plan under a terminal of its own, takes the picture of the live view at the moment when most was to be seen,
and the picture of its timeline afterwards. Then the plan for agents, with the tests' agents that have no model; of that run also
the pictures that `timeline --svg` and `graph --svg` write, and the debugger.
"""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))

from fakeagent.installing import install

from parallel_agents import look
from parallel_agents.cli.debug_app import Debugger
from parallel_agents.debugger.debugging import Debugging
from parallel_agents.project import Project

PICTURES = Path(__file__).resolve().parent
EXAMPLES = PICTURES.parents[1] / "examples"
STEPS = {  # What each agent of the plan for agents does, so that there is something to see.
    "design": ["sleep 1", "write docs/lending.md # Lending", "say One page: lend, back, out; old files stay readable."],
    "store": [
        "sleep 1",
        "run ls shelf",
        "sleep 3",
        "write tests/test_lending.py #",
        "say Lending is built; 6 tests pass.",
    ],
    "guide": ["sleep 2", "write docs/guide.md # How to lend a book", "sleep 3", "say The guide is written."],
    "cli": ["sleep 1", "write tests/test_commands.py #", "say The commands are there; 5 tests pass."],
    "review": ["sleep 1", "write docs/review.md # Nothing grave", "say Nothing grave was found."],
}
WIDTH = 100
DEBUG_WIDTH, DEBUG_HEIGHT = 116, 28
BETWEEN_PICTURES = re.compile(r"(?:\r?\x1b\[2K)(?:\x1b\[1A\x1b\[2K)*")  # How Rich takes back what it drew last.
NO_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Zac-ln-z]")  # All that moves or hides the cursor.
SAME_COLOUR = re.compile(r"(\x1b\[[0-9;]+m)([^\x1b\n]*)\x1b\[0m\1")
# What is drawn for nothing: nothing is wider than its line, what lies beneath all has its colour, and spaces show nothing.
NOTHING = re.compile(
    r'<clipPath.*?</clipPath>\s*| clip-path="[^"]*"|<rect fill="#121212"[^>]*/>|<text[^>]*>(?:&#160;)*</text>',
    re.DOTALL,
)
THEME = TerminalTheme(
    (13, 17, 23),
    (201, 209, 217),
    [(72, 79, 88), (255, 123, 114), (63, 185, 80), (210, 153, 34), (88, 166, 255), (188, 140, 255), (57, 197, 207),
     (177, 186, 196)],
    [(110, 118, 129), (255, 161, 152), (86, 211, 100), (227, 179, 65), (121, 192, 255), (210, 168, 255), (86, 212, 221),
     (240, 246, 252)],
)  # fmt: skip
# As Rich's own, without the frame of a window and without fonts from elsewhere.
SVG = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font: {char_height}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  line-height: {line_height}px; white-space: pre; }}
{styles}
</style>
<defs>{lines}</defs>
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
<g transform="translate({terminal_x}, 12)">{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


def seen_on_a_terminal(*command: str, cwd: Path, **variables: str) -> str:
    """All that a command sends to a terminal of WIDTH columns and 30 lines."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, WIDTH, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", **variables}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(command, cwd=cwd, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    sent = b""
    while True:
        try:
            sent += os.read(ours, 65536)
        except OSError:  # Linux says so when nobody has the other end any more.
            break
        if process.poll() is not None and not sent:
            break
    os.close(ours)
    if process.wait() != 0:
        sys.exit(sent.decode())
    return sent.decode().replace("\r\n", "\n")


def count(status: str, picture: str) -> int:
    """How many tasks a picture of the live view says are in a state."""
    found = re.search(rf"(\d+)(?:/\d+)? {status}", picture)
    return int(found[1]) if found else 0


def draw(picture: str, file: str) -> None:
    """Write text with colours as an SVG."""
    picture = NO_COLOUR.sub("", picture).strip("\n")
    while (joined := SAME_COLOUR.sub(r"\1\2", picture)) != picture:  # Or a bar has a seam at every character.
        picture = joined
    lines = Text.from_ansi(picture)
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(lines, no_wrap=True, overflow="crop")
    svg = console.export_svg(title="", theme=THEME, code_format=SVG, unique_id=file.removesuffix(".svg"))
    (PICTURES / file).write_text(svg, encoding="utf-8")


def copied(example: str, folder: Path) -> Path:
    """An example in a repository of its own."""
    project = Path(shutil.copytree(EXAMPLES / example, folder, ignore=shutil.ignore_patterns("__pycache__")))
    named = ("-c", "user.name=demo", "-c", "user.email=demo@localhost", "-c", "commit.gpgsign=false")
    for words in (["init", "--quiet"], ["add", "."], [*named, "commit", "--quiet", "--message", "Tasks ahead"]):
        subprocess.run(["git", *words], cwd=project, check=True)
    return project


def fullest(sent: str) -> str:
    """Of the pictures of a live view the one in which most is to be seen."""
    pictures = BETWEEN_PICTURES.split(sent)
    return max(pictures, key=lambda picture: (count("running", picture), count("completed", picture), len(picture)))


def agents_without_a_model(folder: Path) -> dict[str, str]:
    """The variables of an environment in which ``claude`` does the steps above."""
    script = folder / "steps.json"
    script.write_text(json.dumps({f"# Task `{task}`": steps for task, steps in STEPS.items()}))
    client, command = install(folder / "agents", "claude") / "claude", folder / "bin" / "claude"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\nFAKE_AGENT_SCRIPT='{script}' exec '{client}' \"$@\"\n")
    command.chmod(0o755)
    return {"PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder)}


async def debugged(project: Path, file: str) -> None:
    """Draw the debugger on the last run of a project, at the moment at which an expression came to hold."""
    with Project.find(start=project).open() as log:
        session = Debugging(log, look.resolve_run(log, None))
        session.watch("cost")
        session.watch("running")
        session.break_at("running == 2 and completed == 1")
        app = Debugger(session)
        async with app.run_test(size=(DEBUG_WIDTH, DEBUG_HEIGHT)) as pilot:
            await pilot.press("home", "c", "m", "down", "down")
            await pilot.pause()
            dressed = Console.export_svg
            Console.export_svg = lambda console, **_: dressed(  # Else as a window, with fonts from elsewhere.
                console, title="", theme=THEME, code_format=SVG, unique_id=file.removesuffix(".svg")
            )
            try:
                svg = NOTHING.sub("", app.export_screenshot(simplify=True))
                (PICTURES / file).write_text(svg, encoding="utf-8")
            finally:
                Console.export_svg = dressed


def main() -> None:
    """Run, choose, draw."""
    program = str(Path(sys.executable).with_name("parallel-agents"))
    with tempfile.TemporaryDirectory() as folder:
        project = copied("full_stack", Path(folder) / "checkout-feature")
        draw(fullest(seen_on_a_terminal(program, "run", "plan.yaml", cwd=project)), "live.svg")
        draw(seen_on_a_terminal(program, "timeline", cwd=project), "timeline.svg")
        project = copied("with_claude", Path(folder) / "shelf")
        variables = agents_without_a_model(Path(folder))
        draw(fullest(seen_on_a_terminal(program, "run", "plan.yaml", cwd=project, **variables)), "agents.svg")
        for verb, file in (("timeline", "waits.svg"), ("graph", "graph.svg")):
            subprocess.run([program, verb, "--svg", str(PICTURES / file)], cwd=project, check=True)
        os.environ.pop("NO_COLOR", None)
        asyncio.run(debugged(project, "debug.svg"))


if __name__ == "__main__":
    main()
