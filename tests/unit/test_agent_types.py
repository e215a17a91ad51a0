"""Agent types from files: found by name, read as their owners' client reads them, and refused with file and line."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from parallel_agents.agent_types import agent_files, examine_agent_types, find_roles, parse_agent_type
from parallel_agents.eventstore.errors import InvalidConfiguration
from parallel_agents.eventstore.submission import AgentRole
from parallel_agents.scheduler.agents.models import MODEL_OF


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's home."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project's root."""
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


def write(top: Path, path: str, text: str) -> None:
    file = top / ".claude" / "agents" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def parsed(text: str) -> AgentRole:
    return parse_agent_type(text, "file", "project", "file.md")[0]


def found(name: str, root: Path, home: Path | None = None) -> AgentRole:
    return find_roles([name], root, {"HOME": str(home)} if home else {})[name]


def test_the_projects_type_comes_before_the_users_and_the_users_before_ours(root: Path, home: Path) -> None:
    """Sub-folders count, and the name is the one in the file."""
    assert found("reviewer", root, home).source == "built-in"
    write(home, "mine.md", "---\nname: reviewer\n---\nOf the user.")
    assert found("reviewer", root, home).prompt == "Of the user."
    write(root, "team/code.md", "---\nname: reviewer\ndescription: Reads.\nmodel: opus\n---\n\nOf the project.\n")
    role = found("reviewer", root, home)
    assert role == AgentRole(
        name="reviewer", description="Reads.", prompt="Of the project.", model="opus", source="project"
    )
    assert found("reviewer", root).source == "project"


def test_the_folder_of_the_users_client_may_be_elsewhere(root: Path, tmp_path: Path) -> None:
    """Where the client is told so; and a home that is the project itself counts once."""
    folder = tmp_path / "elsewhere"
    (folder / "agents").mkdir(parents=True)
    (folder / "agents" / "x.md").write_text("---\nname: x\n---\nX")
    assert find_roles(["x"], root, {"CLAUDE_CONFIG_DIR": str(folder)})["x"].source == "user"
    write(root, "y.md", "---\nname: y\n---\nY")
    assert [
        file.role.source for file in agent_files(root, {"HOME": str(root)}) if file.role and file.role.name == "y"
    ] == ["project"]


def test_ours_are_there_for_every_type_that_users_know(root: Path) -> None:
    """Each short, with a description, and with a summary to leave at its end."""
    roles = find_roles(MODEL_OF, root, {})
    assert {role.source for role in roles.values()} == {"built-in"}
    for role in roles.values():
        assert role.description
        assert 6 <= len(role.prompt.splitlines()) <= 18
        assert re.search(r"^At the end, |end with it", role.prompt, re.MULTILINE)
    assert roles["explore"].tools == ("Read", "Grep", "Glob")


def test_an_unknown_type_gets_a_plain_role_and_a_warning(root: Path) -> None:
    """Which names what was probably meant."""
    said: list[str] = []
    roles = find_roles(["reviwer", "reviwer"], root, {}, said.append)
    assert roles == {"reviwer": AgentRole(name="reviwer", source="none")}
    assert said == ["no agent type is called 'reviwer': its tasks get no role. did you mean 'reviewer'?"]


def test_tools_are_a_list_or_a_text_with_commas() -> None:
    """A comma in brackets belongs to the tool."""
    assert parsed("---\ntools: Read, Bash(git add:*, git log:*),Edit\n---").tools == (
        "Read", "Bash(git add:*, git log:*)", "Edit",
    )  # fmt: skip
    assert parsed("---\ntools: [Read, 'Bash(ls)']\n---").tools == ("Read", "Bash(ls)")
    assert parsed("---\ntools:\n- Read\n  \n- Edit\n---").tools == ("Read", "Edit")
    assert parsed("---\ntools: *\n---").tools is None
    assert parsed("---\ntools:\n---").tools is None


def test_what_people_write_for_their_client_is_read() -> None:
    """Colons and markup in a description, comments, keys of others, line ends of another system."""
    role = parsed(
        "---\r\n# mine\r\ndescription: Use this when: <example>user: 'hi'</example> #1 & more\r\ncolor: red\r\n---\r\nHello"
    )
    assert (role.name, role.prompt) == ("file", "Hello")
    assert role.description == "Use this when: <example>user: 'hi'</example> #1 & more"
    assert parsed("---\ndescription: |\n  One.\n\n  Two.\nmodel: inherit\n---").description == "One.\n\nTwo."
    _, unused = parse_agent_type("---\nmaxTurns: 3\ncolor: red\n---", "x", "user", "x.md")
    assert unused == ("maxTurns",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Hello", "line 1: does not begin with a front matter"),
        ("---\nname: x\n", "line 1: its front matter has no end"),
        ("---\nname: x\nwhat\n---\n", 'line 3: "what" is no `key: value`'),
        ("---\n  x: 1\n---\n", 'line 2: "  x: 1" is no `key: value`'),
        ("---\nname: x\nname: y\n---\n", "line 3: name is given twice"),
        ("---\nname: x\ntools: [Read\nmodel: opus\n---\n", "line 3: tools is no YAML"),
        ("---\ntools: {a: 1}\n---\n", "line 2: tools is a mapping of 1, not a list of names"),
        ("---\nname: 12\n---\n", "line 2: name is 12, not a text"),
        ("---\nname: x\n---\n" + "x" * 100_001, "its prompt has 100,001 bytes; at most 100,000"),
        ("---\nname: x\n---\nkey " + "sk-ant-" + "api03-" + "a1B2c3D4e5F6g7H8" * 4, "holds a secret"),
    ],
)
def test_a_broken_file_is_refused_with_file_and_line(text: str, said: str) -> None:
    """And what is wrong with it."""
    with pytest.raises(InvalidConfiguration) as refused:
        parsed(text)
    assert said in refused.value.message
    assert refused.value.message.startswith("file.md")


def test_a_broken_file_is_in_nobodys_way_until_it_is_used(root: Path, home: Path) -> None:
    """Then it is an error, also where another file of the name would do; ``doctor`` warns before."""
    write(root, "mine.md", "---\nname: reviewer\ntools: [\n---\n")
    os.mkfifo(root / ".claude" / "agents" / "pipe.md")
    environ = {"HOME": str(home)}
    assert set(find_roles(["explore"], root, environ)) == {"explore"}
    for name in ("reviewer", "mine", "pipe"):
        with pytest.raises(InvalidConfiguration, match=r"^\.claude/agents/(mine|pipe)\.md"):
            find_roles([name], root, environ)
    *warnings, total = examine_agent_types(root, environ)
    assert [finding.level for finding in warnings] == ["warning", "warning"]
    assert total[:3] == ("agent types", "ok", f"0 of the project, 0 of the user, {len(MODEL_OF)} built in")


def test_two_files_of_one_name_are_told(root: Path) -> None:
    """The first by path is used; a key that changes nothing here is told too."""
    write(root, "a.md", "---\nname: x\nhooks: {}\n---\nA")
    write(root, "b.md", "---\nname: x\n---\nB")
    said: list[str] = []
    assert find_roles(["x"], root, {}, said.append)["x"].prompt == "A"
    assert len(said) == 2
    assert ".claude/agents/a.md and .claude/agents/b.md hold the same agent type" in said[0]
    assert said[1] == ".claude/agents/a.md: hooks changes nothing here"


def test_without_names_nothing_is_read(root: Path) -> None:
    """A plan of commands needs no agent type."""
    (root / ".claude").write_text("no folder")
    assert find_roles([], root, {}) == {}


@given(some.text(some.sampled_from("-\n:#[]{}'\"*&|> \tnametools,x\r\0é"), max_size=80))
def test_whatever_a_file_holds_it_is_read_or_refused(block: str) -> None:
    """Never anything else."""
    with contextlib.suppress(InvalidConfiguration):
        assert parsed(f"---\n{block}\n---\nx").name
