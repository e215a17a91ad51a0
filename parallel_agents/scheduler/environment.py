"""The environment of a shell attempt: built from nothing, so that a run does not depend on who dispatches it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

RECORDED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ")
"""What ``RunSubmitted`` records of the submitter's environment."""

FROM_DISPATCHER = ("HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "XDG_RUNTIME_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""What belongs to the machine and the user, and is taken from the process that starts the attempt."""


def recorded_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a submission records of its environment. A byte that is no UTF-8, of a folder in PATH say, becomes a ``?``."""
    return {name: environ[name].encode("utf-8", "replace").decode() for name in RECORDED if name in environ}


def missing_variables(environ: Mapping[str, str], env_from: Sequence[str]) -> list[str]:
    """The names of a task's ``env_from`` that the dispatcher's environment does not hold."""
    return [name for name in env_from if name not in environ]


def process_environment(
    environ: Mapping[str, str],
    recorded: Mapping[str, str],
    env: Mapping[str, str],
    env_from: Sequence[str],
    identity: Mapping[str, str],
) -> dict[str, str]:
    """The whole environment of an attempt's process.

    Args:
        environ: of the dispatcher; only ``FROM_DISPATCHER`` and ``env_from`` are taken from it.
        recorded: at submission.
        env: of the task; wins over both.
        identity: RUN and TASK, given as PARALLEL_AGENTS_RUN and PARALLEL_AGENTS_TASK.
    """
    result = {name: environ[name] for name in FROM_DISPATCHER if name in environ}
    result.update(recorded)
    result.update({name: environ[name] for name in env_from if name in environ})
    result.update({f"PARALLEL_AGENTS_{name}": value for name, value in identity.items()})
    result.update(env)
    return result
