"""A run in a git repository whose attempts are made by hand: what they left is a commit, and no process runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from gitrepos import AT_US, head, make_project
from paper import ended, task

from parallel_agents.checkpoint import merging, refs
from parallel_agents.checkpoint.git import encoded
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.checkpoint.snapshot import commit_tree, temporary_index
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.submission import FileSettings, Plan, Task
from parallel_agents.project import Project
from parallel_agents.projections.projector import Projector
from parallel_agents.projections.status import RunState
from parallel_agents.scheduler.decide import decide_finish, storable_text
from parallel_agents.scheduler.work import Clash, Gated, Work, decide_work
from parallel_agents.submit import submit
from parallel_agents.versioning import Start


def commit_of(
    repository: Repository, parent: str, files: Mapping[str, str | bytes | None], message: str = "work"
) -> str:
    """A commit that changes files of its parent; None takes one away."""
    nothing = "0 " + "0" * 40
    with temporary_index(repository) as index:
        git = type(repository.git())(repository.git_dir, index=index)
        git.run("read-tree", parent)
        lines = []
        for path, content in files.items():
            raw = content.encode() if isinstance(content, str) else content
            entry = nothing
            if raw is not None:
                entry = f"100644 {git.run('hash-object', '-w', '--stdin', stdin=raw).out.decode().strip()}"
            lines.append(f"{entry}\t{path}\n")
        git.run("update-index", "--index-info", stdin=encoded("".join(lines)))
        tree = git.text("write-tree")
    return commit_tree(repository, tree, message=message, parents=(parent,), at_us=AT_US)


class HandmadeRun:
    """One run, in a store beside the repository."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *tasks: Task, **more: Any) -> None:
        self.repository = make_project(tmp_path, monkeypatch, more.pop("content", {"f": "one\n", "g": "one\n"}))
        workspace = more.pop("workspace", "worktree")
        files = FileSettings(**more)
        self.project = Project.find(start=self.repository.top)
        self.log = self.project.open(create=True)
        self.base = head(self.repository)
        plan = Plan(name="shop", workspace=workspace, tasks=tasks or (task("a"), task("b")), files=files)
        start = Start(workspace, self.repository)
        self.run_id = submit(self.log, plan, workdir=self.repository.top, start=start, environ={})
        self.add(ev.RunStarted())

    def add(self, *events: ev.Event) -> None:
        """Append what somebody has decided."""
        self.log.append(self.run_id, self.state.version, events)

    @property
    def state(self) -> RunState:
        """The run as the log has it."""
        return Projector(self.log).state(self.run_id)

    def start(self, *names: str) -> None:
        """Attempts begin, at the integration line as it is."""
        for name in names:
            state = self.state
            number = state.tasks[name].attempts + 1
            self.add(
                ev.TaskQueued(task_id=name),
                ev.TaskStarted(
                    task_id=name, attempt_id=f"{name}{number}", attempt=number, runner="shell",
                    base_commit=state.integration,
                ),
            )  # fmt: skip

    def end(
        self, name: str, files: Mapping[str, str | bytes | None], *, other: str = "", gates: tuple[Gated, ...] = ()
    ) -> str:
        """An attempt ends with changes to files, and is merged as the dispatcher would. Gives the work's commit."""
        state = self.state
        one = state.tasks[name]
        assert one.attempt_id is not None
        assert one.base_commit is not None
        assert state.integration is not None
        message = f"{name}\n\nParallel-Agents-Task: {name}\n"
        commit = commit_of(self.repository, one.base_commit, files, message) if files else one.base_commit
        refs.hold(self.repository, {refs.checkpoint_ref(self.run_id, f"w{one.attempt_id}"): commit})
        made = merging.merge(self.repository, state.integration, commit, message=f"Merge {name}", at_us=AT_US)
        clashes = tuple(Clash(storable_text(clash.path), clash.kind) for clash in made.conflicts)
        if made.commit is not None:
            refs.hold(self.repository, {refs.checkpoint_ref(self.run_id, one.attempt_id): made.commit})
        work = Work(
            f"w{one.attempt_id}", commit=commit, changed=len(files), onto=state.integration, merged=made.commit,
            clashes=clashes, other_task_id=other if clashes or gates else "", gates=gates,
        )  # fmt: skip
        self.add(*decide_work(state, ended(one.attempt_id, output=f"{name} says"), work, AT_US, 0.0))
        return commit

    def finish(self) -> None:
        """The end of the run, where all of its tasks have ended."""
        end = decide_finish(self.state)
        assert end is not None
        self.add(end)

    def read(self, path: str, commit: str | None = None) -> str | None:
        """A file of the run's integration line, or of another commit; None where it is not there."""
        named = f"{commit or self.state.integration}:{path}"
        said = self.repository.git().run("cat-file", "blob", named, ok=(0, 128))
        return said.out.decode() if said.code == 0 else None

    def types(self) -> list[str]:
        """The types of all events of the run."""
        return [type(record.event).__name__ for record in self.log.read_run(self.run_id)]

    def reachable(self, commit: str) -> bool:
        """Whether a ref holds a commit."""
        return bool(self.repository.git().text("for-each-ref", "--contains", commit))

    def close(self) -> None:
        """Let go of the store."""
        self.log.close()


Make = Callable[..., HandmadeRun]
"""Takes what ``HandmadeRun`` takes after its first two."""
