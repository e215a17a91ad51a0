"""The effective configuration of a project: flags > environment > project file > user file > defaults.

Strict: a key that nobody knows, a value that cannot be, and a key of a part that is not built yet at another value than
its default are refused by name.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parallel_agents.configuration_keys import (
    ALIASES,
    BY_PATH,
    KEYS,
    NOTIFICATIONS,
    Key,
    fitted,
    misfit_of_format,
    snake_case,
)
from parallel_agents.documents import Loaded, Refusal, form_of, parse, read_text, unlocated
from parallel_agents.eventstore.errors import InvalidConfiguration
from parallel_agents.eventstore.location import user_folder
from parallel_agents.plan_secrets import text_misfit
from parallel_agents.wording import Misfit, escaped, nearest_name, place, shown

ENVIRONMENT_PREFIX = "PARALLEL_AGENTS_"
# Variables of that prefix that are no configuration: where the store is, where a process is to die, and what an attempt is
# told of itself.
_TOLD = ("STORE", "CRASH_AT", "ATTEMPT", "RUN", "TASK", "PORT", "BASE", "CONFLICT")
NOT_CONFIGURATION = tuple(f"{ENVIRONMENT_PREFIX}{name}" for name in _TOLD)

PROJECT_FILES = (
    ".claude/config/parallel-agents-config.json",
    "parallel-agents.toml",
    "parallel-agents.yaml",
    "parallel-agents.yml",
)
USER_FILES = ("config.toml", "config.yaml", "config.yml", "config.json")


@dataclass(frozen=True, slots=True)
class Configuration:
    """Every key with its value and where that came from. Without arguments: all defaults."""

    values: Mapping[str, Any]
    origins: Mapping[str, str]

    def get(self, key: str) -> Any:
        """The value of a key such as ``execution.taskQueue.timeout``; lists and mappings are the caller's own.

        Raises:
            KeyError: no such key.
        """
        return copy.deepcopy(self.values[key]) if key in self.values else copy.deepcopy(BY_PATH[key].default)

    def origin(self, key: str) -> str:
        """``default``, ``user file PATH``, ``project file PATH``, ``environment NAME`` or ``flag``."""
        return self.origins.get(BY_PATH[key].path, "default")

    def is_explicit(self, key: str) -> bool:
        """Whether somebody set the key, if only to its default."""
        return BY_PATH[key].path in self.origins

    def rows(self) -> Iterator[tuple[str, Any, str, bool]]:
        """Every key that means something: (key, value, origin, whether it is in force), in the table's order."""
        for key in KEYS:
            if key.force != "ignored":
                yield key.path, self.get(key.path), self.origin(key.path), key.force != "not built"


DEFAULTS = Configuration({}, {})


@dataclass(frozen=True, slots=True)
class _Layer:
    """One source of settings."""

    origin: str
    loaded: Loaded
    refuse: Refusal
    snake: bool


def load_configuration(
    project_root: Path,
    *,
    config_path: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    user_dir: Path | None = None,
) -> Configuration:
    """The configuration that holds in a project.

    Args:
        project_root: where the project's file is looked for.
        config_path: a file that takes the place of the project's own.
        flags: values by full key (``maxParallelAgents``); None stands for a flag that was not given.
        environ: the environment; None is that of this process.
        user_dir: the folder of the user's own ``config.toml``; None is ``parallel-agents`` under ``$XDG_CONFIG_HOME``
            or ``~/.config``, if there is one.
    Raises:
        InvalidConfiguration: a file that cannot be read, two files where one is meant, or a key that is refused.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    user_dir = user_folder(environ) if user_dir is None else user_dir
    layers = []
    if user_dir is not None and (path := _only_one(user_dir, USER_FILES)):
        layers.append(_file_layer(path, "user file"))
    if config_path is not None:
        layers.append(_file_layer(Path(config_path), "project file"))
    elif path := _only_one(project_root, PROJECT_FILES):
        layers.append(_file_layer(path, "project file"))
    for layer in layers:
        _apply_tree(layer, values, origins)
    _apply_environment(environ, values, origins)
    _apply_flags(flags or {}, values, origins)
    _check_together(values, origins)
    return Configuration(values, origins)


def _only_one(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The one file of these names that is there."""
    found = [folder / name for name in names if os.path.lexists(folder / name)]
    if len(found) > 1:
        both = " and ".join(escaped(str(path)) for path in found[:2])
        raise InvalidConfiguration(f"{both} are both there, and only one can count", hint="keep one of them")
    return found[0] if found else None


def _file_layer(path: Path, kind: str) -> _Layer:
    refuse = Refusal("configuration", str(path), InvalidConfiguration)
    form = form_of(path)
    if form is None:
        refuse("has no ending that tells what it is", hint="name it .json, .toml or .yaml")
    text = read_text(path, refuse)
    return _Layer(f"{kind} {path}", parse(text, form, refuse), refuse, snake=form != "json")


def _apply_tree(layer: _Layer, values: dict[str, Any], origins: dict[str, str]) -> None:
    """Take over what one file says; an empty file or group says nothing."""
    if layer.loaded.value is None:
        return
    if not isinstance(layer.loaded.value, dict):
        layer.refuse(f"is {shown(layer.loaded.value)}, not a mapping of keys")
    seen: dict[str, tuple[str, ...]] = {}
    for key, spelled, value in _leaves(layer, layer.loaded.value, "", ()):
        name = place(spelled)
        value = _checked(key, value, spelled, layer, f"{name} ")
        if key.path in seen and value != values[key.path]:
            hint = "keep one of the two"
            line = layer.loaded.line_of(spelled)
            layer.refuse(f"{name} and {place(seen[key.path])} say different things", hint=hint, line=line)
        seen[key.path] = spelled
        values[key.path], origins[key.path] = value, layer.origin


def _leaves(
    layer: _Layer, tree: dict[Any, Any], group: str, spelled: tuple[str, ...]
) -> Iterator[tuple[Key, tuple[str, ...], Any]]:
    """Every key of a tree with its value, and its path as the file spells it."""
    known = {snake_case(name) if layer.snake else name: name for name in _children(group)}
    for word, value in tree.items():
        here = (*spelled, word)
        if word not in known:
            line = layer.loaded.line_of(here)
            layer.refuse(f"unknown key {place(here)}", hint=_hint_for_key(word, spelled, known, layer.snake), line=line)
        path = known[word] if not group else f"{group}.{known[word]}"
        path = ALIASES.get(path, path)
        if path in BY_PATH:
            yield BY_PATH[path], here, value
        elif isinstance(value, dict):
            yield from _leaves(layer, value, path, here)
        elif value is not None:
            line = layer.loaded.line_of(here)
            layer.refuse(f"{place(here)} is {shown(value)}, not a group of keys", line=line)


def _children(group: str) -> list[str]:
    """The names directly below a group, in the order of the table."""
    prefix = f"{group}." if group else ""
    names = {path.removeprefix(prefix).split(".")[0]: None for path in BY_PATH if path.startswith(prefix)}
    return list(names) + (list(ALIASES) if not group else [])


def _hint_for_key(word: str, spelled: tuple[str, ...], known: Mapping[str, str], snake: bool) -> str:
    """The nearest key here; else the same word where it belongs; else what there is here."""
    hint = nearest_name(word, known)
    if hint.startswith("did you mean"):
        return hint if not spelled else hint.replace("'", f"'{place(spelled)}.", 1)
    paths = [".".join(map(snake_case, path.split("."))) if snake else path for path in BY_PATH]
    elsewhere = [path for path in paths if path.rsplit(".", 1)[-1].casefold() == word.casefold()]
    return f"did you mean {elsewhere[0]!r}?" if elsewhere else hint


def _checked(key: Key, value: Any, spelled: tuple[str | int, ...], layer: _Layer, label: str) -> Any:
    """The value as it will be held, or the layer's refusal. ``label`` is how the source calls the key."""
    try:
        value = fitted(value, key.shape, snake=layer.snake)
        if special := _special_misfit(key.path, value):
            raise special
    except Misfit as misfit:
        line = layer.loaded.line_of((*spelled, *misfit.path))
        below = place(misfit.path)
        joined = label.rstrip() + ("." if below and not below.startswith("[") else "") + below
        layer.refuse(f"{joined} {misfit.message}", hint=misfit.hint, line=line)
    if key.force in ("fixed", "not built") and value != key.default:
        only = _as_json(key.default)
        why = key.why or "this part is not built yet"
        line = layer.loaded.line_of(spelled)
        hint = "leave the key out, or set it to that"
        layer.refuse(f"{label.rstrip()} = {_as_json(value)}: {why}; only {only} is accepted", hint=hint, line=line)
    return value


def _as_json(value: Any) -> str:
    return escaped(json.dumps(value, ensure_ascii=False), 100)


def _special_misfit(path: str, value: Any) -> Misfit | None:
    """What a shape cannot say about a value."""
    if path in ("strategies.pipeline.defaultPipeline", "strategies.hybrid.rules"):
        what, name = ("stage", "stage") if path.endswith("Pipeline") else ("rule", "condition")
        names: set[str] = set()
        agents: dict[str, str] = {}
        for index, entry in enumerate(value):
            if entry[name] in names:
                return Misfit((index, name), f"is {shown(entry[name])}, which another {what} is called already")
            names.add(entry[name])
            for agent in entry["agents"]:
                if agent in agents:
                    message = f"has {shown(agent)}, which the {what} {shown(agents[agent])} has already"
                    return Misfit((index, "agents"), message, f"an agent type belongs to one {what}")
                agents[agent] = entry[name]
    if path.startswith("notifications.") and path.endswith(".format"):
        return misfit_of_format(value, NOTIFICATIONS[path.split(".")[1]][1])
    if path == "agents.runners":
        return next((misfit for name, row in value.items() if (misfit := _client_misfit(name, row))), None)
    if path == "qualityGates.commands":
        return next((misfit for index, gate in enumerate(value) if (misfit := _gate_misfit(index, gate))), None)
    return None


def _client_misfit(name: str, row: dict[str, Any]) -> Misfit | None:
    """Why nothing could be driven by a row."""
    from parallel_agents.scheduler.agents.clients import BUILT_IN
    from parallel_agents.scheduler.runners.protocol import NO_AGENTS

    if name in NO_AGENTS or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,49}", name):
        message = "is what runs commands and callables" if name in NO_AGENTS else "cannot be the name of a runner"
        return Misfit((name,), message, "a name has 1 to 50 characters of A-Z a-z 0-9 . _ -, such as my-agent")
    if "command" not in row and name not in BUILT_IN:
        return Misfit(
            (name,), "has no command", 'write it word by word, such as command: ["my-agent", "--prompt-file", ...]'
        )
    if "command" in row and not row["command"][0].strip():
        return Misfit((name, "command", 0), "is empty, where the name of a program belongs")
    return None


def _gate_misfit(index: int, gate: list[str] | dict[str, Any]) -> Misfit | None:
    """Why a gate could not be run, or must not be written down: it is kept with every run."""
    words, path = (gate, (index,)) if isinstance(gate, list) else (gate["command"], (index, "command"))
    if not words[0].strip():
        return Misfit((*path, 0), "is empty, where the name of a program belongs")
    if any("\0" in word for word in words):
        return Misfit(path, "holds a NUL character, which no command can carry")
    if misfit := text_misfit(path, " ".join(words)):
        return Misfit(path, misfit.message, "let the command take it from a file or from its environment")
    return None


def _apply_environment(environ: Mapping[str, str], values: dict[str, Any], origins: dict[str, str]) -> None:
    """Take over ``PARALLEL_AGENTS_*``; an empty variable counts as not set."""
    names = environment_names()
    refuse = Refusal("configuration", "environment", InvalidConfiguration)
    for name in sorted(environ):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in NOT_CONFIGURATION:
            continue
        if name not in names:
            hint = nearest_name(name, [*names, *NOT_CONFIGURATION])
            refuse(f"{escaped(name, 100)} is no variable of parallel-agents", hint=hint)
        if environ[name]:
            key = names[name]
            origin = f"environment {name}"
            layer = _Layer(origin, unlocated(None), refuse, snake=False)
            values[key.path] = _checked(key, _from_text(environ[name], key), (), layer, name)
            origins[key.path] = origin


def environment_names() -> dict[str, Key]:
    """Every variable that sets a key, such as ``PARALLEL_AGENTS_EXECUTION__TASK_QUEUE__TIMEOUT``."""
    names = {}
    for key in KEYS:
        if key.force == "ignored":
            continue
        short = [key.path.replace(full, alias, 1) for alias, full in ALIASES.items() if key.path.startswith(full + ".")]
        for path in (*short, key.path):
            parts = [snake_case(part).upper() for part in path.split(".")]
            names[ENVIRONMENT_PREFIX + "__".join(parts)] = key
    return names


def _from_text(text: str, key: Key) -> Any:
    """A variable's text as the value it stands for; what cannot be is left for the check to refuse."""
    if "enum" in key.shape or key.shape.get("type") == "string":
        return text
    try:
        return json.loads(text.lower() if key.shape.get("type") == "boolean" else text)
    except (ValueError, RecursionError):
        return text


def value_of_text(path: str, text: str) -> Any:
    """What a text from the command line says of a key; an unknown key is left for ``load_configuration`` to refuse."""
    key = BY_PATH.get(path)
    return text if key is None else _from_text(text, key)


def _apply_flags(flags: Mapping[str, Any], values: dict[str, Any], origins: dict[str, str]) -> None:
    layer = _Layer("flag", unlocated(None), Refusal("configuration", "flag", InvalidConfiguration), snake=False)
    for path, value in flags.items():
        if value is None:
            continue
        if path not in BY_PATH:
            layer.refuse(f"unknown key {escaped(path, 100)}", hint=nearest_name(path, BY_PATH))
        value = list(value) if isinstance(value, tuple) else value
        values[path], origins[path] = _checked(BY_PATH[path], value, (), layer, path), "flag"


def _check_together(values: dict[str, Any], origins: dict[str, str]) -> None:
    """What two keys say must be possible at once. A default gives way to what somebody set."""
    _check_rollback(values, origins)
    low, high = "execution.workerPool.minWorkers", "execution.workerPool.maxWorkers"
    least = values.get(low, BY_PATH[low].default)
    most = values.get(high, BY_PATH[high].default)
    if least <= most:
        return
    if low in values and high in values:
        raise InvalidConfiguration(
            f"{escaped(origins[low])}: {low} is {least}, more than {high}, which is {most} ({escaped(origins[high])})",
            hint="minWorkers may be at most maxWorkers",
        )
    if low in values:
        values[high] = least
    else:
        values[low] = most


def _check_rollback(values: dict[str, Any], origins: dict[str, str]) -> None:
    """A failed gate can only take files back to a checkpoint."""
    wanted, checkpoints = "qualityGates.autoRollbackOnFailure", "checkpointIntegration.enabled"
    if values.get(wanted) and values.get("qualityGates.enabled", True) and not values.get(checkpoints, True):
        raise InvalidConfiguration(
            f"{escaped(origins[wanted])}: {wanted} is true, and without checkpoints there is nothing to roll back to: "
            f"{checkpoints} = false ({escaped(origins[checkpoints])})",
            hint="switch one on, or the other off",
        )
