"""The names of the package: all there, and imported when they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import parallel_agents
from parallel_agents.version import RELEASE

USERS_KNOW = {
    "ParallelExecutor", "ParallelExecutionResult", "AgentTask", "AgentStatus", "ExecutionStrategy", "TaskQueue",
    "QueuedTask", "Priority", "DependencyManager", "AgentDependency", "TaskContext", "ParallelAgentsError",
}  # fmt: skip


def test_every_name_is_there() -> None:
    """Those that users know, the errors that callers catch, and the release."""
    assert set(parallel_agents.__all__) >= USERS_KNOW
    assert parallel_agents.__version__ == RELEASE
    for name in parallel_agents.__all__:
        assert (
            getattr(parallel_agents, name).__module__.startswith("parallel_agents.") if name != "__version__" else True
        )
    assert set(parallel_agents.__all__) <= set(dir(parallel_agents))
    namespace: dict[str, object] = {}
    exec("from parallel_agents import *", namespace)
    assert set(parallel_agents.__all__) <= namespace.keys()


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As of any module."""
    with pytest.raises(AttributeError, match="module 'parallel_agents' has no attribute 'ParallelExecuter'"):
        _ = parallel_agents.ParallelExecuter
    with pytest.raises(ImportError, match="cannot import name 'Executor'"):
        exec("from parallel_agents import Executor")


def test_editors_and_mypy_see_the_same_names() -> None:
    """What is imported for them is what is exported, from the same places."""
    tree = ast.parse(Path(parallel_agents.__file__).read_text(encoding="utf-8"))
    [branch] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: node.module.removeprefix("parallel_agents.")
        for node in branch.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    assert seen == parallel_agents._HOMES
    assert set(parallel_agents.__all__) == {*seen, "__version__"}


def test_the_package_itself_imports_nothing_heavy() -> None:
    """A command that needs none of its names starts without them."""
    code = """
import sys
before = set(sys.modules)
import parallel_agents.version
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))
print(*sorted(name for name in sys.modules if name.startswith("parallel_agents")))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "parallel_agents\nparallel_agents parallel_agents.version\n"
