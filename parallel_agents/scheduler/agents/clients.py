"""The command-line agents that can be driven: one row each, as data. Pure.

A row says how the client is started, how it gets its prompt, what its output is read as, and what it can tell. The
configuration changes rows and adds others (``agents.runners``); nothing else in the package knows a client by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

from parallel_agents.scheduler.runners.protocol import Errand

PromptBy = Literal["talk", "stdin", "argument", "file"]
"""talk: as a message on an open standard input, which can be asked to stop later; stdin: as its whole content;
argument: ``{prompt}`` in the command; file: ``{prompt_file}`` in the command."""

NETWORK: Final = (
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS",
)  # fmt: skip
"""Variables of the dispatcher's environment that every client gets: proxies and certificates."""

CLIENTS: Final = "clients"
"""The folder beside the store that holds the configuration and sessions of clients that have none of their user's."""

LIMIT_OF_ARGUMENT: Final = 128 * 1024  # Bytes; Linux refuses a longer one (MAX_ARG_STRLEN).


@dataclass(frozen=True, slots=True)
class Client:
    """One command-line agent."""

    name: str
    command: tuple[str, ...]  # ``{prompt}``, ``{prompt_file}`` and ``{session}`` in a word are filled in.
    prompt: PromptBy = "stdin"
    output: str = "text"  # A name of ``PARSERS``.
    model: tuple[str, ...] = ()  # Added where a model was chosen; ``{model}`` is its name. None: it takes no model.
    role: tuple[str, ...] = ()  # Added where there is a role; ``{role}`` or ``{role_file}``. None: the prompt says it.
    tools: tuple[str, ...] = ()  # Added where tools are allowed; ``{tools}`` is a list with commas.
    permission: tuple[str, ...] = ()  # ``{permission}``.
    session: tuple[str, ...] = ()  # Added to a new session; ``{session}`` is our id for it.
    resume: tuple[str, ...] = ()  # In place of that, to go on with ``{session}``. None: it cannot be resumed.
    resume_command: tuple[str, ...] = ()  # In place of the whole command, where that is another one.
    limit: tuple[str, ...] = ()  # ``{limit}`` in dollars.
    passes: tuple[str, ...] = ()  # Patterns of variables of the dispatcher's environment that it gets.
    withholds: tuple[str, ...] = ()  # Of these, patterns that it does not get all the same.
    sets: Mapping[str, str] | None = None  # Variables that it gets unless they are passed.
    config_variable: str = ""  # Names the folder of its configuration and sessions; ours, unless ...
    keys: tuple[str, ...] = ()  # ... none of these is set: then its user's own, where they have logged in.
    home: str = ""  # Below its user's home: the folder that ``config_variable`` names elsewhere ...
    login: str = ""  # ... and the file in it that is there when they have logged in.
    temporary: tuple[str, ...] = ()  # Variables that name its folder for temporary files, besides TMPDIR.
    provider: str = ""  # Whose limits it meets.
    tells: tuple[str, ...] = ()  # Of cost, tokens, session.
    tested: bool = False  # Driven by us for real.
    package: str = ""  # A Python package that may bundle it, and where in there.
    bundled: str = ""

    @property
    def streams(self) -> bool:
        """Whether it prints something all the time that it works, so that silence means something."""
        return self.output in ("claude", "codex")

    @property
    def takes_model(self) -> bool:
        """Whether a model can be chosen for it."""
        return bool(self.model)

    @property
    def resumable(self) -> bool:
        """Whether a session that was cut off can be gone on with."""
        return bool(self.resume or self.resume_command)


BUILT_IN: Final[Mapping[str, Client]] = {
    client.name: client
    for client in (
        Client(
            name="claude",
            command=("claude", "-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose",
                     "--include-partial-messages"),
            prompt="talk", output="claude", model=("--model", "{model}"), role=("--append-system-prompt-file", "{role_file}"),
            tools=("--allowedTools", "{tools}"), permission=("--permission-mode", "{permission}"),
            session=("--session-id", "{session}"), resume=("--resume", "{session}"), limit=("--max-budget-usd", "{limit}"),
            passes=("ANTHROPIC_*", "CLAUDE_*", "AWS_*", "GOOGLE_*", "CLOUD_ML_REGION", "IS_SANDBOX", "DISABLE_*", "BASH_*",
                    "MAX_THINKING_TOKENS", "API_TIMEOUT_MS"),
            withholds=("CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_SSE_PORT", "CLAUDE_CODE_SESSION*"),
            sets={"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"},
            config_variable="CLAUDE_CONFIG_DIR",
            keys=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_USE_BEDROCK",
                  "CLAUDE_CODE_USE_VERTEX"),
            home=".claude", login=".credentials.json",
            temporary=("CLAUDE_CODE_TMPDIR",),
            provider="anthropic", tells=("cost", "tokens", "session"), tested=True, package="claude_agent_sdk",
            bundled="_bundled/claude",
        ),
        Client(
            name="codex",
            command=("codex", "exec", "--json", "--skip-git-repo-check", "--sandbox", "workspace-write", "-"),
            prompt="stdin", output="codex", model=("-m", "{model}"),
            # ``resume`` itself knows no sandbox, and would be allowed to read only.
            resume_command=("codex", "exec", "--json", "--skip-git-repo-check", "--sandbox", "workspace-write", "resume",
                            "{session}", "-"),
            passes=("OPENAI_*", "CODEX_*"), config_variable="CODEX_HOME", keys=("OPENAI_API_KEY", "CODEX_API_KEY"),
            home=".codex", login="auth.json",
            provider="openai", tells=("tokens", "session"), tested=True,
        ),
        Client(
            name="opencode", command=("opencode", "run", "--format", "json", "{prompt}"), prompt="argument", output="json",
            model=("-m", "{model}"), passes=("OPENCODE_*", "ANTHROPIC_*", "OPENAI_*", "GEMINI_*", "GOOGLE_*"),
        ),
        Client(
            # It may edit; to let it run commands too, a configured row says ``yolo``.
            name="gemini", prompt="argument", output="json", model=("-m", "{model}"),
            command=("gemini", "-p", "{prompt}", "--output-format", "stream-json", "--approval-mode=auto_edit"),
            passes=("GEMINI_*", "GOOGLE_*"), provider="google",
        ),
        Client(
            name="aider",
            command=("aider", "--message-file", "{prompt_file}", "--yes-always", "--no-auto-commits", "--no-stream",
                     "--no-pretty"),
            prompt="file", output="text", model=("--model", "{model}"),
            passes=("AIDER_*", "ANTHROPIC_*", "OPENAI_*", "GEMINI_*"),
        ),
    )
}  # fmt: skip

FIELDS: Final = frozenset(one.name for one in fields(Client)) - {
    "name",
    "temporary",
    "tested",
    "package",
    "bundled",
    "home",
    "login",
}
"""What the configuration may say of a row."""


def clients(given: Mapping[str, Mapping[str, Any]]) -> dict[str, Client]:
    """The whole table: the built-in rows, changed and added to.

    Args:
        given: row by name, with the fields that it names (``FIELDS``); a new one needs a command.
    """
    table = dict(BUILT_IN)
    for name, row in given.items():
        said: dict[str, Any] = {
            field: tuple(value) if isinstance(value, list) else value for field, value in row.items()
        }
        if name in table:
            table[name] = replace(table[name], **said)
        else:
            table[name] = Client(name=name, **said)
    return table


def words(
    client: Client, errand: Errand, *, session: str | None, prompt: str, prompt_file: str, role_file: str
) -> tuple[str, ...]:
    """The command that starts a client on an errand.

    Args:
        session: that is gone on with; None for a new one.
        prompt: what it is told (see ``told``), and the files in which that and its role lie.
    """
    resumes = session is not None and client.resumable
    command = client.resume_command if resumes and client.resume_command else client.command
    last = command[-1:] if command[-1:] == ("-",) else ()  # Says that the prompt comes on stdin; options stand before.
    parts = [command[: len(command) - len(last)]]
    if client.model and errand.model:
        parts.append(client.model)
    if client.role and errand.role_prompt and not (resumes and client.resume_command):
        parts.append(client.role)
    if client.permission and errand.permission_mode:
        parts.append(client.permission)
    if client.tools and errand.tools:
        parts.append(client.tools)
    if client.limit and errand.limit_usd_micros is not None:
        parts.append(client.limit)
    if resumes and not client.resume_command:
        parts.append(client.resume)
    elif client.session and not resumes:
        parts.append(client.session)
    filled = {
        "{prompt}": prompt,
        "{prompt_file}": prompt_file,
        "{role}": errand.role_prompt,
        "{role_file}": role_file,
        "{model}": errand.model or "",
        "{tools}": ",".join(errand.tools or ()),
        "{permission}": errand.permission_mode,
        "{session}": session if resumes and session else errand.session_id,
        "{limit}": f"{(errand.limit_usd_micros or 0) / 1e6:.6f}",
    }
    return tuple(_filled(word, filled) for part in (*parts, last) for word in part)


def _filled(word: str, filled: Mapping[str, str]) -> str:
    """One word with its one placeholder filled in. What was filled in is not looked at again."""
    for name, value in filled.items():
        before, found, after = word.partition(name)
        if found:
            return before + value + after
    return word


def told(client: Client, errand: Errand, *, resumes: bool) -> str:
    """What the client is told: the prompt, and before it who it is where no option of the client says that."""
    if resumes:
        return errand.resume_prompt
    return (
        f"{errand.role_prompt.strip()}\n\n{errand.prompt}" if errand.role_prompt and not client.role else errand.prompt
    )


def environment(
    client: Client, environ: Mapping[str, str], built: Mapping[str, str], config_folder: str
) -> dict[str, str]:
    """The environment of a client's process.

    Args:
        environ: of the dispatcher; what the row lets through is taken from it.
        built: what every attempt gets, the plan's own variables included; wins.
        config_folder: of ours for this kind of client.
    """
    passed = {name: value for name, value in environ.items() if _passes(client, name)}
    result = {**(client.sets or {}), **passed, **built}
    if result.get("TMPDIR") == environ.get("TMPDIR"):  # Not the plan's: it gets one of its own.
        result.pop("TMPDIR", None)
    if client.config_variable and client.config_variable not in result and any(result.get(key) for key in client.keys):
        result[client.config_variable] = config_folder
    return result


def _passes(client: Client, name: str) -> bool:
    if _matches(name, client.withholds):
        return False
    return name in NETWORK or _matches(name, client.passes)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
