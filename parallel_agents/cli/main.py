"""The command line: verbs, looked up by name and imported when they are called, and errors in the user's words."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from keyword import iskeyword
from typing import TYPE_CHECKING, NoReturn

import click

from parallel_agents import ParallelAgentsError
from parallel_agents.version import RELEASE

if TYPE_CHECKING:
    from parallel_agents.new_store import StoreMaker

INTERRUPTED = 130
WRONG_USAGE = 2
_COLLECT_AFTER = 20_000  # New objects; Python's own 700 make an import of ours look through all others fifty times.

# Heading -> verb -> (module of this room, what it does). Help is printed from here, so that no verb is imported for it.
VERBS: dict[str, dict[str, tuple[str, str]]] = {
    "Run": {
        "run": ("running", "Run a plan here and follow it to its end."),
        "simulate": ("simulating", "Play a plan many times without running it."),
        "submit": ("running", "Queue a plan for whoever dispatches, and print the run's id."),
        "wait": ("running", "Wait for a run's end and exit with its code."),
        "schedules": ("schedules", "List the plans that run by a timetable, or take one out."),
        "attach": ("running", "Follow a run that another process dispatches."),
        "daemon": ("daemon", "Start, stop or ask after the process that dispatches in the background."),
    },
    "Look": {
        "runs": ("looking", "List the runs."),
        "status": ("looking", "Show a run and its tasks."),
        "queue": ("looking", "Show what waits for a slot, in the order in which it will start."),
        "history": ("history", "Show what happened, event by event."),
        "logs": ("reading", "Print what a task's attempt wrote."),
        "show": ("looking", "Show one task's whole life."),
        "timeline": ("looking", "Draw a run as bars over time."),
        "graph": ("graphing", "Show what depends on what in a run, and what its length was made of."),
        "cost": ("looking", "Show what a run has cost."),
        "why": ("looking", "Say why a task does not run, or did not."),
        "lineage": ("lineage", "Say which attempt, model and money made a file or a line."),
        "debug": ("debug", "Go to and fro in a run, event by event, and see all of it at each."),
        "replay": ("replay", "Look at a past run as it went, prove it, or ask what would have been otherwise."),
    },
    "Keep files": {
        "checkpoints": ("checkpointing", "List the checkpoints of a run, and those made by hand."),
        "checkpoint": ("checkpointing", "Make a checkpoint, look into one, or take files back to one."),
    },
    "Steer": {
        "pause": ("steering", "Start no more tasks of a run; what runs finishes."),
        "resume": ("steering", "Go on with a run that was paused or left."),
        "cancel": ("steering", "End a run, or one task of it."),
        "retry": ("steering", "Open failed tasks again, and what was skipped because of them."),
        "budget": ("steering", "Show what a run may spend, or set it anew while it goes on."),
        "limits": ("steering", "Show providers that let nobody work and runners that are broken, or lift that."),
        "stop": ("steering", "Emergency stop: end everything of this store now."),
    },
    "Settle": {
        "approve": ("settling", "Let a task start, or let its work be merged."),
        "conflicts": ("settling", "List work that did not merge, and how to settle it."),
        "resolve": ("settling", "Settle a conflict: take a side, name files, or edit."),
        "merge": ("settling", "Bring the result of a run to your branch."),
    },
    "Go back": {
        "rollback": ("travelling", "Take a run back to an event or a checkpoint: queue and files together."),
        "fork": ("travelling", "Start a new run from the past of another one."),
        "diff": ("travelling", "Say what lies between two moments of a run, or between two runs."),
        "files": ("laying_out", "List the files of a moment of a run, or lay them out in a new folder."),
    },
    "Keep house": {
        "verify": ("keeping", "Check that the log is what was written."),
        "seal": ("proving", "Sign what the log is now, to find a history that was rewritten as a whole."),
        "scrub": ("scrubbing", "Remove a secret that was found later from the log and from files."),
        "backup": ("storing", "Write the log, the commits of all runs and their outputs to one file."),
        "export": ("carrying", "Write one run to a file that another machine can prove, replay and fork."),
        "import": ("carrying", "Bring a run in that was exported elsewhere, to look at it and to fork it."),
        "restore": ("storing", "Bring a backup back, checked before anything is put in place."),
        "doctor": ("keeping", "Look at this machine and this project, and say what is wrong."),
        "gc": ("housekeeping", "Remove what runs have left and nobody needs any more."),
        "archive": ("archive", "Move the bulk of old runs into compressed files, and read it from there."),
        "config": ("keeping", "Show the configuration, or the schemas for editors."),
        "completion": ("keeping", "Print the completion script of a shell."),
    },
}
# What other tools call it; difflib would not find these.
OTHER_WORDS = {
    "ls": "runs", "list": "runs", "ps": "runs", "start": "run", "kill": "stop --now", "abort": "cancel", "log": "logs",
    "events": "history", "info": "show", "check": "verify", "unpause": "resume", "continue": "resume", "rerun": "retry",
    "tail": "logs", "explain": "why", "critical-path": "graph", "dag": "graph", "gantt": "timeline",
    "enqueue": "submit", "follow": "attach",
    "blame": "lineage", "annotate": "lineage", "step": "debug", "tui": "debug", "inspect": "debug",
    "accept": "approve", "allow": "approve", "settle": "resolve", "land": "merge", "apply": "merge", "conflict": "conflicts",
    "undo": "rollback", "rewind": "rollback", "branch": "fork",
    "forecast": "simulate", "predict": "simulate", "what-if": "replay --set", "whatif": "replay --set",
    "cron": "schedules", "crontab": "schedules", "schedule": "submit --cron", "unschedule": "schedules --remove",
    "clean": "gc", "prune": "gc", "cleanup": "gc",
    "snapshot": "checkpoint", "snapshots": "checkpoints", "fsck": "verify --deep", "dump": "backup",
    "sign": "seal", "attest": "seal", "redact": "scrub", "purge": "scrub",
}  # fmt: skip


class Verbs(click.Group):
    """The verbs, imported one by one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which help shows them."""
        return [verb for group in VERBS.values() for verb in group]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a verb, or None."""
        for group in VERBS.values():
            if cmd_name in group:
                module = import_module(f"parallel_agents.cli.{group[cmd_name][0]}")
                command: click.Command = getattr(module, f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name)
                command.short_help = group[cmd_name][1]
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest right spelling in the error."""
        name = args[0]
        if not name.startswith("-") and name not in self.list_commands(ctx):
            raise UnknownVerb(name, self.list_commands(ctx))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One heading after the other."""
        for heading, group in VERBS.items():
            with formatter.section(heading):
                formatter.write_dl([(verb, text) for verb, (_, text) in group.items()])


class UnknownVerb(click.UsageError):
    """There is no such verb; the hint names the nearest."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        shown = name if len(name) <= 60 else name[:60] + "..."
        super().__init__(f"there is no verb {shown!r}")
        close = get_close_matches(name, known, n=1, cutoff=0.6)
        word = OTHER_WORDS.get(name) or (close[0] if close else None)
        self.hint = f"did you mean {word!r}?" if word else "`parallel-agents --help` lists the verbs"


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 a task failed, 2 wrong usage or plan, 3 no such run, task or event, 4 an agent could not "
    "authenticate, 5 waits for a person, 6 a budget or limit was reached, 7 no daemon, 8 the log was changed, 130 interrupted.",
    no_args_is_help=True,
)
@click.version_option(RELEASE, "--version", "-V", prog_name="parallel-agents")
@click.option("--store", metavar="PATH|URL", help="The store, in place of the project's own.")
@click.pass_context
def cli(ctx: click.Context, store: str | None) -> None:
    """Run several agents at once on one project, and never lose anything they did."""
    ctx.obj = {"store": store, **(ctx.obj or {})}


def main(args: Sequence[str] | None = None) -> NoReturn:
    """The entry point of the console script."""
    words = list(sys.argv[1:] if args is None else args)
    gc.set_threshold(_COLLECT_AFTER)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")  # To look for some takes longer than `--version`.
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # A terminal without the character for a state still shows the rest.
    maker = _store_maker(words)
    try:
        code = exit_code_of(words, maker)
    finally:
        if maker is not None:
            maker.finish()
    _drop_what_cannot_be_printed()
    gc.freeze()  # Or the interpreter looks through everything once more before it goes.
    sys.exit(code)


def _store_maker(words: Sequence[str]) -> StoreMaker | None:
    """Who makes a new project's store, begun before what the command needs is imported."""
    if "run" not in words:
        return None
    from parallel_agents.new_store import maker_for

    return maker_for(words)


def _open_what_is_closed() -> None:
    """Stand in for a standard stream that we were started without: its number must not become that of a store's file."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # Takes the lowest free number, which is this one.
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))


def exit_code_of(words: list[str], maker: StoreMaker | None = None) -> int:
    """Carry out a command line; errors are printed, and their code is given.

    Args:
        maker: who makes the store meanwhile, if it is to be made.
    """
    as_json = "--json" in words
    try:
        code = cli.main(args=words, prog_name="parallel-agents", standalone_mode=False, obj={"maker": maker})
        if code != INTERRUPTED:  # There the terminal may have gone away, and that is what the code says.
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except ParallelAgentsError as error:
        complain(error.code, error.message, error.hint, as_json=as_json)
        return error.exit_code
    except _HELP as error:
        click.echo(error.format_message(), err=True)
        return WRONG_USAGE
    except click.NoSuchOption as error:
        hint = f"did you mean {sorted(error.possibilities)[0]}?" if error.possibilities else _help_hint(error)
        complain("usage", f"there is no option {error.option_name}", hint, as_json=as_json)
        return WRONG_USAGE
    except click.UsageError as error:
        message = error.format_message().rstrip(".")
        complain(
            "usage", message[:1].lower() + message[1:], getattr(error, "hint", "") or _help_hint(error), as_json=as_json
        )
        return WRONG_USAGE
    except (KeyboardInterrupt, click.Abort):
        complain("interrupted", "interrupted", "", as_json=as_json)
        return INTERRUPTED
    except BrokenPipeError:
        _drop_what_cannot_be_printed()  # Whoever read us has seen enough.
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno is None:
            raise
        _drop_what_cannot_be_printed()
        complain("system", f"{error.strerror}" + (f": {error.filename}" if error.filename else ""), "", as_json=as_json)
        return WRONG_USAGE
    except Exception:
        broken = _broken_log(words)
        if broken is None:
            raise  # A bug of ours, with its traceback.
        complain(broken.code, broken.message, broken.hint, as_json=as_json)
        return broken.exit_code


def _broken_log(words: list[str]) -> ParallelAgentsError | None:
    """What is wrong with the log, where it is not what was written: whoever reads it trusts it, and may stumble anywhere."""
    from parallel_agents import ChainBroken
    from parallel_agents.project import Project
    from parallel_agents.verification import verify

    store = next((words[at + 1] for at, word in enumerate(words[:-1]) if word == "--store"), None)
    store = next((word.removeprefix("--store=") for word in words if word.startswith("--store=")), store)
    try:
        with Project.find(store=store).open() as log:
            found = verify(log)
    except ParallelAgentsError as error:
        return error
    except Exception:
        return None
    if found["ok"]:
        return None
    where = "" if found["broken"] is None else f": event {found['broken']['seq']} was changed"
    return ChainBroken(f"the log is not what was written{where}", hint="`parallel-agents verify` says more")


def _drop_what_cannot_be_printed() -> None:
    """Let what is left for a stream go nowhere, or the interpreter tries it once more at its end and complains."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# What click 8.2 raises for a group without a verb; older ones print the help themselves.
_HELP: tuple[type[click.UsageError], ...] = tuple(
    kind for kind in (getattr(click.exceptions, "NoArgsIsHelpError", None),) if kind is not None
)


def _help_hint(error: click.UsageError) -> str:
    where = error.ctx.command_path if error.ctx is not None else "parallel-agents"
    return f"`{where} --help` shows how"


def complain(code: str, message: str, hint: str, *, as_json: bool) -> None:
    """Print an error where errors belong: for a person, or for a script that reads JSON."""
    message, hint = _harmless(message), _harmless(hint)
    if as_json:
        from parallel_agents.cli.harmless import json_text

        click.echo(json_text({"error": {"code": code, "message": message, "hint": hint}}), err=True)
        return
    click.echo(click.style("error: ", fg="red", bold=True) + message, err=True)
    if hint:
        click.echo(click.style("hint: ", fg="cyan") + hint, err=True)


def _harmless(text: str) -> str:
    """The text, with what would move a cursor shown as an escape: names of files and runs come from anybody."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode("ascii") for char in text
    )


if __name__ == "__main__":
    main()
