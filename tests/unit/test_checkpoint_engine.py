"""Checkpoints from a Python program: made, found, and gone back to without losing anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from gitrepos import as_git_keeps, belongings, found, make_project, no_settings, tree, user_git, write
from paper import plan_of, task

import parallel_agents.checkpoint as room
from parallel_agents import Ambiguous, InvalidConfiguration, InvalidUsage, NotAllowed, UnknownCheckpoint, checkpoints
from parallel_agents import checkpoint_restoring as restoring
from parallel_agents.checkpoint.git import GitFailed
from parallel_agents.checkpoint_engine import CheckpointEngine
from parallel_agents.checkpoint_metadata import CheckpointCategory, CheckpointLevel
from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.errors import StaleRun
from parallel_agents.eventstore.log import Log, digest_of
from parallel_agents.eventstore.record import Recorded
from parallel_agents.eventstore.submission import Plan


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git project with one commit; logs are ignored."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CONFIG_HOME", "PARALLEL_AGENTS_STORE"):
        monkeypatch.delenv(name, raising=False)
    files = {"readme": "hello\n", "src/one": "1\n", ".gitignore": "*.log\n"}
    return make_project(tmp_path, monkeypatch, files).top


@pytest.fixture
def engine(top: Path) -> CheckpointEngine:
    """An engine of that project."""
    return CheckpointEngine(framework_root=top)


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is in no git repository."""
    no_settings(monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "plain"
    write(folder, {"a": "1\n", "deep/b": "2\n"})
    return folder


def start_run(engine: CheckpointEngine, run_id: str, plan: Plan, *, repository: Path | None, workdir: Path) -> None:
    """A run of one task ``a`` whose attempt has begun; nobody dispatches it."""
    head = user_git(workdir, "rev-parse", "HEAD") if repository is not None else None
    content = plan.to_bytes()
    submitted = ev.RunSubmitted(
        name="n", plan_digest=digest_of(content), task_count=len(plan.tasks), strategy="concurrent",
        workspace=plan.workspace, workdir=str(workdir), base_commit=head,
        repository=None if repository is None else str(repository),
    )  # fmt: skip
    attempt = ev.TaskStarted(task_id="a", attempt_id=f"{run_id}-1", attempt=1, runner="shell", base_commit=head)
    with engine.project.open(create=True) as log:
        events = [submitted, ev.RunStarted(), ev.TaskQueued(task_id="a"), attempt]
        log.append(run_id, 0, events, blobs={digest_of(content): content})


def end_attempt(log: Log, run_id: str) -> None:
    """Its attempt has failed."""
    failed = ev.TaskFailed(task_id="a", attempt_id=f"{run_id}-1", duration_s=1.0, error="no", retryable=False)
    log.append(run_id, 4, [failed])


def a_plan(workspace: str) -> Plan:
    """One task of a tester."""
    return plan_of(task("a", agent_type="tester")).model_copy(update={"workspace": workspace})


def test_a_rollback_makes_every_file_what_it_was(engine: CheckpointEngine, top: Path) -> None:
    """Changed, new, deleted, renamed, executable, linked and binary ones; ignored ones stay as they are."""
    (top / "tool").write_bytes(bytes(range(256)))
    (top / "tool").chmod(0o755)
    (top / "link").symlink_to("readme")
    before = as_git_keeps(tree(top))
    made = engine.create_checkpoint(label="all well")
    write(top, {"readme": "changed\n", "new/file": "new\n", "mine.log": "mine\n"})
    (top / "src/one").unlink()
    (top / "tool").chmod(0o644)
    (top / "link").unlink()
    (top / "link").write_text("no link any more\n")
    after = as_git_keeps(tree(top))
    gone_back = engine.rollback_to_checkpoint(made)
    assert (gone_back.success, gone_back.checkpoint_label, gone_back.files_restored) == (True, "all well", 5)
    assert as_git_keeps(tree(top)) == {**before, b"mine.log": after[b"mine.log"]}
    assert gone_back.rollback_checkpoint_created is not None
    assert engine.rollback_to_checkpoint(gone_back.rollback_checkpoint_created).success
    assert as_git_keeps(tree(top)) == after


def test_nothing_else_of_the_users_is_touched(engine: CheckpointEngine, top: Path) -> None:
    """Neither branch nor index, stash, hooks or configuration; half of a change may be staged."""
    write(top, {"readme": "staged\n"})
    user_git(top, "add", "readme")
    write(top, {"readme": "more\n", "untracked": "x\n"})
    before = belongings(found(top))
    made = engine.create_checkpoint()
    engine.get_checkpoint_metadata(made)
    engine.semantic_rewind("1 step", dry_run=True)
    assert engine.rollback_to_checkpoint(made).files_restored == 0
    assert belongings(found(top)) == before


def test_every_checkpoint_is_held_by_a_ref(engine: CheckpointEngine, top: Path) -> None:
    """So that git's own garbage collection leaves it."""
    write(top, {"precious": "once\n"})
    made = engine.create_checkpoint()
    (top / "precious").unlink()
    user_git(top, "gc", "--prune=now", "-q")
    assert (
        user_git(top, "rev-parse", f"refs/parallel-agents/store/{made}") == engine.get_checkpoint_metadata(made).commit
    )
    engine.rollback_to_checkpoint(made)
    assert (top / "precious").read_text() == "once\n"


def test_ignored_files_are_never_overwritten(engine: CheckpointEngine, top: Path) -> None:
    """It is refused, they are named, and nothing is changed or recorded; so does a dry run say."""
    write(top, {"build/out": "tracked\n", "readme": "then\n"})
    made = engine.create_checkpoint(label="built")
    write(top, {".gitignore": "*.log\nbuild/\n", "build/out": "precious\n", "readme": "now\n"})
    before, count = tree(top), len(engine.list_checkpoints())
    for dry_run in (True, False):
        refused = engine.rollback_to_checkpoint(made, dry_run=dry_run)
        assert (refused.success, refused.conflicts, refused.rollback_checkpoint_created) == (False, ["build/out"], None)
        assert "build/out" in refused.message
    assert tree(top) == before
    assert len(engine.list_checkpoints()) == count


def test_a_dry_run_says_what_would_happen_and_does_nothing(engine: CheckpointEngine, top: Path) -> None:
    """No file, no event, no ref."""
    made = engine.create_checkpoint(label="one")
    write(top, {"readme": "two\n", "new": "x\n"})
    before, refs = tree(top), user_git(top, "for-each-ref")
    seen = engine.rollback_to_checkpoint(made, dry_run=True)
    assert (seen.success, seen.files_restored, seen.rollback_checkpoint_created) == (True, 2, None)
    assert "would restore 2 files" in seen.message
    assert (tree(top), user_git(top, "for-each-ref")) == (before, refs)
    assert [one["kind"] for one in engine.list_checkpoints()] == ["manual"]


def test_attempts_that_work_in_the_directory_are_not_disturbed(engine: CheckpointEngine, top: Path) -> None:
    """As long as one of a shared run is running; those in worktrees of their own do not mind."""
    made = engine.create_checkpoint()
    write(top, {"readme": "by an agent\n"})
    start_run(engine, "ownfolders", a_plan("worktree"), repository=top, workdir=top)
    assert engine.rollback_to_checkpoint(made, dry_run=True).success
    start_run(engine, "sharedruns", a_plan("shared"), repository=top, workdir=top)
    for dry_run in (True, False):
        refused = engine.rollback_to_checkpoint(made, dry_run=dry_run)
        assert (refused.success, refused.conflicts) == (False, [])
        assert "sharedruns/a" in refused.message
    assert (top / "readme").read_text() == "by an agent\n"
    with engine.project.open() as log:
        end_attempt(log, "sharedruns")
    assert engine.rollback_to_checkpoint(made).success


def test_what_is_written_just_then_is_kept_too(
    engine: CheckpointEngine, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that changes between the checkpoint and the restoration is in a checkpoint all the same."""
    made = engine.create_checkpoint()
    write(top, {"readme": "first\n"})
    real: Callable[..., Recorded] = restoring.create_of_files

    def write_after(*args: object) -> Recorded:
        found = real(*args)
        if (top / "readme").read_text() == "first\n":
            write(top, {"readme": "second\n"})
        return found

    monkeypatch.setattr(restoring, "create_of_files", write_after)
    result = engine.rollback_to_checkpoint(made)
    assert (top / "readme").read_text() == "hello\n"
    assert result.rollback_checkpoint_created is not None
    commit = engine.get_checkpoint_metadata(result.rollback_checkpoint_created).commit
    assert user_git(top, "show", f"{commit}:readme") == "second"


def test_two_restorations_at_once_are_one(engine: CheckpointEngine, top: Path) -> None:
    """The other one is told."""
    made = engine.create_checkpoint()
    with restoring._alone(found(top)), pytest.raises(GitFailed, match="being restored"):
        engine.rollback_to_checkpoint(made)


def test_what_cannot_be_kept_stops_the_rollback(engine: CheckpointEngine, top: Path) -> None:
    """A checkpoint that fails protects nothing, so nothing is replaced."""
    made = engine.create_checkpoint()
    write(top, {"readme": "two\n"})
    inner = top / "inner"
    inner.mkdir()
    user_git(inner, "init", "-q")
    user_git(inner, "commit", "-q", "--allow-empty", "-m", "x")
    with pytest.raises(GitFailed, match="inner"):
        engine.rollback_to_checkpoint(made)
    assert (top / "readme").read_text() == "two\n"


def test_metadata_says_what_was_there(engine: CheckpointEngine, top: Path) -> None:
    """Counted from the commit; against the checkpoint before, and against git's HEAD."""
    first = engine.create_checkpoint(label="start")
    write(top, {"readme": "fixed\n", "src/new": "12345"})
    (top / "src/one").unlink()
    second = engine.create_checkpoint(
        CheckpointLevel.QUALITY_GATE, "Bug fix", "of the parser\nand more", "backend-engineer", ["urgent"]
    )
    seen = engine.get_checkpoint_metadata(second)
    assert (seen.checkpoint_id, seen.label, seen.description) == (second, "Bug fix", "of the parser\nand more")
    assert (seen.level, seen.category) == ("quality_gate", "bugfix")
    assert (seen.agent_type, seen.tags, seen.run_id, seen.kind) == ("backend-engineer", ["urgent"], "store", "manual")
    assert (seen.files_count, seen.total_size_bytes) == (3, len("fixed\n") + len("12345") + len("*.log\n"))
    assert seen.changed_files == ["readme", "src/new", "src/one"]
    assert (seen.git_commit, seen.git_branch) == (user_git(top, "rev-parse", "HEAD"), "main")
    assert seen.git_status == {"clean": False, "changes": ["M readme", "A src/new", "D src/one"]}
    assert (seen.parent_checkpoint, seen.child_checkpoints) == (first, [])
    assert abs(datetime.fromisoformat(seen.timestamp) - datetime.now(UTC)) < timedelta(hours=1)
    begin = engine.get_checkpoint_metadata(first)
    assert (begin.parent_checkpoint, begin.child_checkpoints, begin.changed_files) == (None, [second], [])
    assert begin.git_status == {"clean": True, "changes": []}


def test_a_checkpoint_without_a_label_says_what_it_is(engine: CheckpointEngine) -> None:
    """Its description's first line, else its level and agent."""
    labels = [
        engine.create_checkpoint(description="Before the move\nto another house"),
        engine.create_checkpoint("agent_execution", agent_type="reviewer"),
        engine.create_checkpoint(),
    ]
    assert [engine.get_checkpoint_metadata(made).label for made in labels] == [
        "Before the move", "agent execution of reviewer", "manual",
    ]  # fmt: skip


def test_checkpoints_are_listed_newest_first_by_level_and_category(engine: CheckpointEngine) -> None:
    """Those of the runs of the store too."""
    assert engine.list_checkpoints() == []
    fix = engine.create_checkpoint(label="bug fix")
    gate = engine.create_checkpoint(CheckpointLevel.QUALITY_GATE, label="tests pass")
    assert [one["checkpoint_id"] for one in engine.list_checkpoints()] == [gate, fix]
    assert [one["checkpoint_id"] for one in engine.list_checkpoints(limit=1)] == [gate]
    assert [one["checkpoint_id"] for one in engine.list_checkpoints(CheckpointLevel.MANUAL)] == [fix]
    assert [one["checkpoint_id"] for one in engine.list_checkpoints(category=CheckpointCategory.TESTING)] == [gate]
    with engine.project.open() as log:
        log.append(
            "ruuuuuuuun", 0, [ev.CheckpointCreated(checkpoint_id="cccccccccc", kind="stage", stage=0, label="s")]
        )
    newest = engine.list_checkpoints()[0]
    assert (newest["checkpoint_id"], newest["level"], newest["run_id"]) == ("cccccccccc", "quality_gate", "ruuuuuuuun")


def test_the_finders_give_an_id_or_nothing(engine: CheckpointEngine) -> None:
    """By words, time, agent, category and steps; the newest where several fit."""
    assert engine.find_checkpoint_by_description("anything") is None
    assert engine.rewind_by_steps(1) is None
    one = engine.create_checkpoint(label="Bug fix of the parser", agent_type="tester")
    two = engine.create_checkpoint(label="bugfix of the lexer", description="Slow PATH", agent_type="tester")
    assert engine.find_checkpoint_by_description("fix bugs") == two
    assert engine.find_checkpoint_by_description("the parser") == one
    assert engine.find_checkpoint_by_description("slow path", fuzzy=False) == two
    assert engine.find_checkpoint_by_description("path slow", fuzzy=False) is None
    assert engine.find_checkpoint_by_time(0) == engine.find_checkpoint_by_time(datetime.now(UTC)) == two
    assert engine.find_checkpoint_by_time(timedelta(days=1)) is None
    assert [engine.find_checkpoint_by_agent("tester", n) for n in (1, 2, 3, 0)] == [two, one, None, None]
    assert engine.find_checkpoint_by_agent("nobody") is None
    assert engine.find_checkpoint_by_category(CheckpointCategory.BUGFIX) == two
    assert engine.find_checkpoint_by_category("documentation") is None
    assert [engine.rewind_by_steps(n) for n in (1, 2, 3)] == [two, one, None]


def test_words_lead_back_and_say_how_they_were_understood(engine: CheckpointEngine, top: Path) -> None:
    """Steps count from where the files are: what was undone by going back is not among them."""
    start = engine.create_checkpoint(label="start")
    write(top, {"readme": "fixed\n"})
    fix = engine.create_checkpoint(label="bug fix")
    write(top, {"readme": "worse\n"})
    seen = engine.semantic_rewind("rewind to before bug fix", dry_run=True)
    assert (seen.checkpoint_id, (top / "readme").read_text()) == (start, "worse\n")
    result = engine.semantic_rewind("rewind 2 steps")
    assert (result.success, result.checkpoint_id, (top / "readme").read_text()) == (True, start, "hello\n")
    assert result.message.startswith("understood as the 2nd last checkpoint: ")
    assert start in result.message
    with pytest.raises(UnknownCheckpoint):
        engine.semantic_rewind("rewind 2 steps")
    assert engine.semantic_rewind(f"rewind to {fix}").success
    assert (top / "readme").read_text() == "fixed\n"
    engine.create_checkpoint(label="fix of the bug")
    with pytest.raises(Ambiguous):
        engine.semantic_rewind("rewind to before fix")
    assert (top / "readme").read_text() == "fixed\n"


def test_an_unknown_id_is_refused_with_the_nearest(engine: CheckpointEngine) -> None:
    """Exit code 3, as on the command line."""
    with pytest.raises(UnknownCheckpoint, match="there is no checkpoint"):
        engine.rollback_to_checkpoint("aaaaaaaaaa")
    made = engine.create_checkpoint()
    typed = made[:-1] + ("a" if made[-1] != "a" else "b")
    for ask in (engine.rollback_to_checkpoint, engine.get_checkpoint_metadata):
        with pytest.raises(UnknownCheckpoint) as refused:
            ask(typed)
        assert (refused.value.exit_code, refused.value.hint) == (3, f"did you mean {made!r}?")


def test_a_checkpoint_of_a_run_brings_the_run_s_files(engine: CheckpointEngine, top: Path) -> None:
    """Its agent type is that of its task."""
    user_git(top, "checkout", "-q", "-b", "side")
    write(top, {"readme": "of the run\n"})
    user_git(top, "commit", "-qam", "work")
    commit = user_git(top, "rev-parse", "HEAD")
    user_git(top, "checkout", "-q", "main")
    start_run(engine, "somerunner", a_plan("worktree"), repository=top, workdir=top)
    with engine.project.open() as log:
        after = ev.CheckpointCreated(
            checkpoint_id="afterafter", kind="after_attempt", commit=commit, task_id="a", attempt_id="somerunner-1"
        )
        log.append("somerunner", 4, [after])
    seen = engine.get_checkpoint_metadata("afterafter")
    assert (seen.agent_type, seen.level, seen.git_commit) == ("tester", "agent_execution", commit)
    assert engine.find_checkpoint_by_agent("tester") == "afterafter"
    assert engine.semantic_rewind("rewind to last tester checkpoint").success
    assert (top / "readme").read_text() == "of the run\n"
    assert user_git(top, "branch", "--show-current") == "main"


@pytest.mark.parametrize("losses", [1, 10])
def test_a_checkpoint_of_a_run_that_goes_on_is_of_where_it_stands_then(
    engine: CheckpointEngine, top: Path, monkeypatch: pytest.MonkeyPatch, losses: int
) -> None:
    """Its commit is the integration line at its own event, however often somebody else appends first."""
    start_run(engine, "somerunner", a_plan("worktree"), repository=top, workdir=top)
    write(top, {"readme": "merged\n"})
    user_git(top, "commit", "-qam", "merged")
    merged = user_git(top, "rev-parse", "HEAD")
    with engine.project.open() as log:
        append = log.append
        calls = []

        def lose(run_id: str, version: int, events: list[ev.Event]) -> list[Recorded]:
            calls.append(version)
            if len(calls) == 1:
                done = ev.TaskCompleted(task_id="a", attempt_id="somerunner-1", duration_s=1.0, commit=merged)
                append(run_id, version, [done])
            if len(calls) <= losses:
                raise StaleRun("somebody was first")
            return append(run_id, version, events)

        monkeypatch.setattr(log, "append", lose)
        made = checkpoints.create(log, engine.project, "somerunner", "now")
        assert [one["checkpoint_id"] for one in checkpoints.list_of(log, "somerunner")] == [made["checkpoint_id"]]
    assert made["commit"] == merged
    ref = f"refs/parallel-agents/somerunner/{made['checkpoint_id']}"
    assert user_git(top, "rev-parse", ref) == merged


def test_a_checkpoint_without_files_cannot_be_gone_back_to(engine: CheckpointEngine, top: Path) -> None:
    """And is no step of those that can."""
    made = engine.create_checkpoint()
    start_run(engine, "norunfiles", a_plan("none"), repository=None, workdir=top)
    with engine.project.open() as log:
        log.append(
            "norunfiles", 4, [ev.CheckpointCreated(checkpoint_id="nofilesyet", kind="before_attempt", task_id="a")]
        )
    with pytest.raises(NotAllowed, match="holds no files"):
        engine.rollback_to_checkpoint("nofilesyet")
    assert engine.rewind_by_steps(1) == made
    assert engine.get_checkpoint_metadata("nofilesyet").files_count == 0


def test_a_directory_without_git_is_kept_by_a_shadow_repository(plain: Path) -> None:
    """Beside the store; no .git appears, and going back is as exact."""
    engine = CheckpointEngine(framework_root=plain)
    made = engine.create_checkpoint(label="start")
    before = as_git_keeps(tree(plain))
    write(plain, {"a": "2\n", "c": "3\n"})
    (plain / "deep/b").unlink()
    assert engine.get_checkpoint_metadata(made).git_commit is None
    assert engine.rollback_to_checkpoint(made).files_restored == 3
    assert as_git_keeps(tree(plain)) == before
    assert not (plain / ".git").exists()
    assert (plain / ".parallel-agents" / "shadow.git").is_dir()


def test_a_repository_without_a_commit_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its checkpoints stand on nothing."""
    no_settings(monkeypatch)
    write(tmp_path, {"a": "1\n"})
    user_git(tmp_path, "init", "-q")
    engine = CheckpointEngine(framework_root=tmp_path)
    made = engine.create_checkpoint()
    write(tmp_path, {"a": "2\n"})
    assert engine.get_checkpoint_metadata(made).git_commit is None
    assert engine.get_checkpoint_metadata(made).changed_files == ["a"]
    assert engine.rollback_to_checkpoint(made).success
    assert (tmp_path / "a").read_text() == "1\n"


def test_a_store_among_the_files_is_refused(top: Path) -> None:
    """A rollback would take the log back with them; ignored, it may lie anywhere."""
    engine = CheckpointEngine(framework_root=top, store=top / "my.db")
    with pytest.raises(NotAllowed, match="lies among the files") as refused:
        engine.create_checkpoint()
    assert ".gitignore" in refused.value.hint
    write(top, {".gitignore": "*.log\nmy.db*\n"})
    assert engine.rollback_to_checkpoint(engine.create_checkpoint()).success


def test_projects_that_share_a_store_do_not_get_each_others_files(
    engine: CheckpointEngine, top: Path, plain: Path, tmp_path: Path
) -> None:
    """The checkpoint says where it belongs, and nothing is changed."""
    stores = tmp_path / "stores" / "all.db"
    other = tmp_path / "other"
    user_git(tmp_path, "clone", "-q", str(top), str(other))
    first, second = (CheckpointEngine(framework_root=folder, store=stores) for folder in (top, other))
    made = first.create_checkpoint()
    user_git(other, "fetch", "-q", str(top), f"refs/parallel-agents/store/{made}")
    with pytest.raises(NotAllowed) as refused:
        second.rollback_to_checkpoint(made)
    assert str(top) in refused.value.message
    elsewhere = CheckpointEngine(framework_root=plain, store=stores)
    with pytest.raises(NotAllowed):
        elsewhere.rollback_to_checkpoint(made)
    assert first.rollback_to_checkpoint(made).success


def test_all_of_a_repository_goes_back_where_the_project_is_a_part_of_it(top: Path) -> None:
    """Which the result says."""
    engine = CheckpointEngine(framework_root=top / "src")
    made = engine.create_checkpoint()
    write(top, {"readme": "changed\n"})
    result = engine.rollback_to_checkpoint(made)
    assert (top / "readme").read_text() == "hello\n"
    assert result.warnings == [f"all of the repository at {top} was restored"]


def test_wrong_arguments_are_refused_by_name(engine: CheckpointEngine, top: Path, tmp_path: Path) -> None:
    """A folder that is not there, a configuration that is none, a level that nobody knows."""
    with pytest.raises(InvalidUsage, match="there is no folder"):
        CheckpointEngine(framework_root=tmp_path / "nowhere")
    (tmp_path / "odd.json").write_text(json.dumps({"checkpointing": True}))
    with pytest.raises(InvalidConfiguration, match="checkpointing"):
        CheckpointEngine(tmp_path / "odd.json", top)
    with pytest.raises(InvalidUsage, match="level is"):
        engine.create_checkpoint("hourly")


def test_the_names_are_the_same_wherever_they_are_imported_from() -> None:
    """And importing the folder alone imports nothing of ours."""
    import checkpoint

    assert set(checkpoint.__all__) == set(room.HOMES)
    for name in checkpoint.__all__:
        assert getattr(checkpoint, name) is getattr(room, name)
    assert set(checkpoint.__all__) <= set(dir(checkpoint)) & set(dir(room))
    for module in (checkpoint, room):
        with pytest.raises(AttributeError, match="has no attribute 'Checkpointer'"):
            module.Checkpointer  # noqa: B018  # Asked for, not used.
    code = "import checkpoint, sys; print(*(name for name in sys.modules if name.startswith('parallel_agents')))"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert ended.stdout == "\n"
