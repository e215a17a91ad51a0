"""What is shipped: a wheel with one package in it that works without the checkout, and a checkout that needs no links."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email import message_from_string
from email.message import Message
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from parallel_agents.version import RELEASE

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT_NAMES = {"checkpoint/__init__.py", "checkpoint/py.typed"}
LINKS = ("eventstore", "projections", "scheduler", "cli")
# Names that a user's own files have, and that ours must neither shadow nor be shadowed by.
USER_FILES = (
    *("cli", "scheduler", "eventstore", "projections", "checkpoint"),
    *("plan", "status", "errors", "version", "process"),
)
IMPORT_ALL = """
import importlib, pathlib, pkgutil, sys
import parallel_agents
for module in pkgutil.walk_packages(parallel_agents.__path__, "parallel_agents."):
    importlib.import_module(module.name)
print(pathlib.Path(parallel_agents.__file__).parent.parent)
"""


def environment_without_ours() -> dict[str, str]:
    """The environment of a shell that knows nothing of this checkout."""
    foreign = ("PYTHON", "PARALLEL_AGENTS", "VIRTUAL_ENV", "PYTEST")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def run(*command: str | Path, cwd: Path) -> str:
    """The output of a command that must succeed."""
    words = [str(word) for word in command]
    ended = subprocess.run(words, cwd=cwd, env=environment_without_ours(), capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def build(kind: str, checkout: Path, folder: Path) -> Path:
    """What the build backend makes of a checkout, without fetching anything."""
    run(sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", folder, cwd=checkout)
    (made,) = folder.iterdir()
    return made


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata_file(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (found,) = (path for path in archive.namelist() if path.endswith(f".dist-info/{name}"))
        return archive.read(found).decode()


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The table ``project`` of pyproject.toml."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        table: dict[str, Any] = tomllib.load(file)["project"]
    return table


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """What the wheel says about itself."""
    return message_from_string(metadata_file(wheel, "METADATA"))


@pytest.fixture(scope="module")
def checkout_without_links(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive, unpacked in a path with a space, and small files where git writes them for want of links."""
    folder = tmp_path_factory.mktemp("without links")
    with tarfile.open(build("sdist", ROOT, folder / "made")) as archive:
        assert [member.name for member in archive if not member.isfile()] == []
        archive.extractall(folder, filter="data")
    (checkout,) = folder.glob("parallel_agent_orchestrator-*")
    for link in LINKS:
        (checkout / link).write_text(f"parallel_agents/{link}")
    return checkout


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of an environment into which the wheel was installed; the libraries come from ours."""
    home = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--no-index", wheel),
        cwd=home,
    )
    (site,) = home.glob("lib/python*/site-packages")
    # A path in a .pth file comes after what is installed here, and the .pth files in it, such as ours, do not count.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n" + sysconfig.get_path("platlib") + "\n")
    return python.parent


def test_the_wheel_holds_one_package_and_the_name_for_checkpoints(wheel: Path) -> None:
    """No tests, no examples, and no links under other names; every module, and the marks of their types."""
    shipped = {name for name in names_in(wheel) if not re.match(r"parallel_agent_orchestrator-[^/]+\.dist-info/", name)}
    on_disk = {str(path.relative_to(ROOT)) for path in (ROOT / "parallel_agents").rglob("*.py")}
    assert {name for name in shipped if not name.startswith("parallel_agents/")} == CHECKPOINT_NAMES
    assert {name for name in shipped if name.endswith(".py")} == {*on_disk, "checkpoint/__init__.py"}
    prompts = {str(path.relative_to(ROOT)) for path in (ROOT / "parallel_agents/agents").glob("*.md")}
    assert {name for name in shipped if name.endswith(".md")} == prompts != set()
    assert "parallel_agents/py.typed" in shipped
    assert not [name for name in shipped if "__pycache__" in name]


def test_the_wheel_says_what_it_is(metadata: Message, project: dict[str, Any], wheel: Path) -> None:
    """Its name, version, licence and command."""
    assert (metadata["Name"], metadata["Version"]) == ("parallel-agent-orchestrator", RELEASE)
    assert project["version"] == RELEASE
    assert metadata["License-Expression"] == "MIT"
    assert any(name.endswith("/licenses/LICENSE") for name in names_in(wheel))
    assert "parallel-agents = parallel_agents.cli.main:main" in metadata_file(wheel, "entry_points.txt")


def test_a_checkout_without_links_makes_the_same_wheel(
    checkout_without_links: Path, wheel: Path, tmp_path: Path
) -> None:
    """The links are for people only, and the source archive is complete."""
    with zipfile.ZipFile(build("wheel", checkout_without_links, tmp_path)) as other, zipfile.ZipFile(wheel) as ours:
        assert {one.filename: one.CRC for one in other.infolist()} == {one.filename: one.CRC for one in ours.infolist()}


@pytest.mark.slow
def test_a_checkout_without_links_can_be_tested(checkout_without_links: Path) -> None:
    """Every module of it can be imported, and every test of it collected."""
    assert run(sys.executable, "-c", IMPORT_ALL, cwd=checkout_without_links).strip() == str(checkout_without_links)
    collected = run(sys.executable, "-m", "pytest", "--collect-only", "tests", cwd=checkout_without_links)
    assert re.search(r"\d{3,} tests collected", collected)


def test_the_installed_command_runs_anywhere(installed: Path, tmp_path: Path) -> None:
    """It says the release of the wheel, in a directory that knows nothing of us."""
    assert RELEASE in run(installed / "parallel-agents", "--version", cwd=tmp_path)


def test_files_of_the_user_do_not_get_in_the_way(installed: Path, tmp_path: Path) -> None:
    """A directory full of modules named like ours is neither imported by us nor hidden from its owner."""
    for name in USER_FILES:
        (tmp_path / f"{name}.py").write_text("OWNER = 'user'\n")
    assert RELEASE in run(installed / "parallel-agents", "--version", cwd=tmp_path)
    assert Path(run(installed / "python", "-c", IMPORT_ALL, cwd=tmp_path).strip()).is_relative_to(installed.parent)
    owners = "; ".join(f"import {name}; assert {name}.OWNER == 'user'" for name in USER_FILES)
    run(installed / "python", "-c", f"import parallel_agents; {owners}", cwd=tmp_path)


def test_a_plan_runs_from_what_was_installed(installed: Path, tmp_path: Path) -> None:
    """Supervisor and all, among files that are named like our modules and must not be imported."""
    for name in USER_FILES:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the user was imported')\n")
    tasks = "[{task_id: a, agent_type: x, description: x, command: [sh, -c, 'echo done > made.txt']}]"
    (tmp_path / "plan.yaml").write_text(f"name: small\ntasks: {tasks}\n")
    run(installed / "parallel-agents", "run", "plan.yaml", cwd=tmp_path)
    assert (tmp_path / "made.txt").read_text() == "done\n"


@pytest.mark.parametrize("kind", ["wheel", "checkout"])
def test_checkpoints_are_imported_by_the_name_that_programs_know(
    kind: str, installed: Path, checkout_without_links: Path, tmp_path: Path
) -> None:
    """From a wheel and from a checkout, and they are the ones of the package."""
    code = (
        "from checkpoint import CheckpointEngine, MultiAgentCoordinator; import checkpoint, parallel_agents.checkpoint as room;"
        "assert room.CheckpointEngine is CheckpointEngine; print(checkpoint.__file__)"
    )
    python, cwd, home = {
        "wheel": (installed / "python", tmp_path, installed.parent),
        "checkout": (Path(sys.executable), checkout_without_links, checkout_without_links),
    }[kind]
    assert Path(run(python, "-c", code, cwd=cwd).strip()).is_relative_to(home)


def pinned() -> dict[str, str]:
    """The lines of constraints.txt: canonical name -> version."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    wrong = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.+!]*", line)]
    assert wrong == [], "names and versions only"
    names = [canonicalize_name(line.split("==")[0]) for line in lines]
    assert names == sorted(set(names))
    return dict(zip(names, (line.split("==")[1] for line in lines), strict=True))


def test_the_constraints_hold_every_dependency(project: dict[str, Any]) -> None:
    """Of the program, of every extra and of the build, at a version that its lower bound allows."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        build_requires = tomllib.load(file)["build-system"]["requires"]
    versions = pinned()
    for text in [*build_requires, *project["dependencies"], *chain(*project["optional-dependencies"].values())]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)]), text
        assert any(one.operator == ">=" for one in wanted.specifier), f"{text} has no lower bound"
    assert not {"pip", "setuptools", canonicalize_name(project["name"])} & versions.keys()
