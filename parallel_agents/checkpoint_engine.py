"""Checkpoints from a Python program: make them, look through them, go back to one of them by id or by words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from parallel_agents import checkpoints as known_checkpoints
from parallel_agents.checkpoint.contents import files_of, first_parent
from parallel_agents.checkpoint.snapshot import changed_paths
from parallel_agents.checkpoint_metadata import (
    CheckpointCategory,
    CheckpointLevel,
    CheckpointMetadata,
    RollbackResult,
    category,
)
from parallel_agents.checkpoint_restoring import InTheWay, InUse, outlook, restore
from parallel_agents.configuration import Configuration
from parallel_agents.eventstore.errors import InvalidUsage, UnknownCheckpoint, nearest
from parallel_agents.eventstore.events import STORE_RUN
from parallel_agents.eventstore.log import Log
from parallel_agents.project import Project
from parallel_agents.rewind_phrases import fitting, standing_at, understand
from parallel_agents.wording import shown

ACTOR = "python"


class CheckpointEngine:
    """Makes checkpoints of the project's files and takes the files back to them.

    It works on the project's store: what it makes is listed by `parallel-agents checkpoints`, and it knows the checkpoints
    of every run. In a git repository a checkpoint holds the working tree of the whole repository, untracked files included
    and ignored ones not; elsewhere the project's directory. It touches neither branch nor index. An engine may be used
    from several threads, and keeps nothing open in between.

    Args:
        config_path: a configuration file that takes the place of the project's own.
        framework_root: the project's root; else it is found from the working directory.
        store: a path or URL that takes the place of the project's store.
    Raises:
        InvalidUsage: there is no such folder.
        InvalidConfiguration: the configuration is refused.
    """

    def __init__(
        self,
        config_path: str | Path | None = None,
        framework_root: str | Path | None = None,
        *,
        store: str | Path | None = None,
    ) -> None:
        root = None if framework_root is None else Path(framework_root).resolve()
        if root is not None and not root.is_dir():
            raise InvalidUsage(
                f"there is no folder {shown(str(root))}",
                hint="framework_root is the project's root, an existing folder",
            )
        self.project = Project.find(start=root, store=None if store is None else str(store), root=root)
        self.configuration: Configuration = self.project.configuration(
            config_path=None if config_path is None else Path(config_path)
        )

    def create_checkpoint(
        self,
        level: CheckpointLevel | str = CheckpointLevel.MANUAL,
        label: str | None = None,
        description: str | None = None,
        agent_type: str | None = None,
        tags: Sequence[str] | None = None,
    ) -> str:
        """Make a checkpoint of the project's files as they are.

        Args:
            label: None: the first line of the description, else what the level and the agent say.
        Returns:
            Its id.
        Raises:
            NotAllowed: the store lies among the files that it would hold.
            GitFailed: something cannot be kept exactly, such as a repository in the repository.
        """
        return self.record(known_checkpoints.MANUAL, level, label, description, agent_type, tags)

    def record(
        self,
        kind: str,
        level: CheckpointLevel | str,
        label: str | None,
        description: str | None,
        agent_type: str | None,
        tags: Sequence[str] | None,
    ) -> str:
        """The same, of another kind than those made by hand: the coordinator's have a before and an after."""
        found = _level(level)
        first_line = (description or "").strip().split("\n")[0]
        spoken = found.value.replace("_", " ") + (f" of {agent_type}" if agent_type else "")
        with self.project.open(create=True, actor=ACTOR) as log:
            made = known_checkpoints.create(
                log, self.project, None, label or first_line or spoken, description=description or "",
                agent_type=agent_type, level=found.value, tags=list(tags or ()), kind=kind,
            )  # fmt: skip
        return str(made["checkpoint_id"])

    def list_checkpoints(
        self,
        level: CheckpointLevel | str | None = None,
        category: CheckpointCategory | str | None = None,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """The checkpoints of the store, those of all runs too, the newest first.

        Returns:
            Each with checkpoint_id, timestamp, level, category, label and tags; and what `checkpoints --json` gives.
        """
        wanted_level = None if level is None else _level(level)
        wanted_category = None if category is None else CheckpointCategory(category)
        lines = [_line(one) for one in reversed(self._known())]
        return [
            line
            for line in lines
            if wanted_level in (None, line["level"]) and wanted_category in (None, line["category"])
        ][:limit]

    def get_checkpoint_metadata(self, checkpoint_id: str) -> CheckpointMetadata:
        """All that is known of a checkpoint, by its id.

        Raises:
            UnknownCheckpoint: there is none of that id.
        """
        with self._opened() as log:
            known = self._known(log)
            one = _of_id(known, checkpoint_id)
            line = _line(one)
            made = CheckpointMetadata(
                checkpoint_id=checkpoint_id, timestamp=line["timestamp"], level=line["level"], category=line["category"],
                label=one["label"], description=one["description"], git_branch=one["branch"], agent_type=one["agent_type"],
                parent_checkpoint=one["parent"], tags=one["tags"], commit=one["commit"], run_id=one["run_id"],
                kind=one["kind"], child_checkpoints=[
                    other["checkpoint_id"] for other in known if other["parent"] == checkpoint_id
                ],
            )  # fmt: skip
            if log is not None and one["commit"] is not None:
                self._look_at_files(log, one, made)
        return made

    def _look_at_files(self, log: Log, one: dict[str, Any], made: CheckpointMetadata) -> None:
        """Fill in what the commit and the one before it say."""
        repository = known_checkpoints.repository_of_checkpoint(log, self.project, one)
        files = files_of(repository, one["commit"])
        made.files_count, made.total_size_bytes = len(files), sum(file.size for file in files)
        made.changed_files = [change.path for change in known_checkpoints.changes_of(log, repository, one, files)]
        if repository.shadow:
            return
        by_hand = one["run_id"] == STORE_RUN
        made.git_commit = first_parent(repository, one["commit"]) if by_hand else one["commit"]
        if made.git_commit is not None:
            changes = changed_paths(repository, made.git_commit, one["commit"])
            lines = [f"{change.status} {change.path}" for change in changes]
            made.git_status = {"clean": not lines, "changes": lines}

    def rollback_to_checkpoint(self, checkpoint_id: str, dry_run: bool = False) -> RollbackResult:
        """Make the project's directory equal to a checkpoint, after making a checkpoint of what is there.

        Ignored files are left alone. Statuses of runs stay as they are: `parallel-agents rollback` takes a run back.

        Args:
            dry_run: only say what it would do.
        Returns:
            Without success where ignored files would be overwritten (``conflicts`` names them) or attempts of a run work in
            the directory; nothing was changed then.
        Raises:
            UnknownCheckpoint: there is none of that id.
            NotAllowed: it has no files, or they are of another project.
            GitFailed: what is there cannot be kept exactly, so nothing was replaced.
        """
        with self._opened() as log:
            one = _of_id(self._known(log), checkpoint_id)
            assert log is not None
            result = RollbackResult(False, checkpoint_id, one["label"], 0)
            name = f"checkpoint {checkpoint_id}" + (f" {shown(one['label'])}" if one["label"] else "")
            try:
                if dry_run:
                    return self._foresee(log, one, name, result)
                done = restore(log, self.project, one, in_place=True)
            except InTheWay as error:
                result.conflicts, result.message = error.paths, f"nothing was changed: {error.message}"
                return result
            except InUse as error:
                result.message = f"nothing was changed: {error.message}"
                return result
        result.success, result.files_restored = True, done.files
        result.rollback_checkpoint_created = done.before_id
        result.message = (
            f"went back to {name}: {_files(done.files)} restored; what was there is checkpoint {done.before_id}"
        )
        if done.folder != self.project.root:
            result.warnings.append(f"all of the repository at {done.folder} was restored")
        return result

    def _foresee(self, log: Log, one: dict[str, Any], name: str, result: RollbackResult) -> RollbackResult:
        seen = outlook(log, self.project, one)
        if seen.in_use:
            raise InUse(seen.in_use, self.project.root)
        if seen.in_the_way:
            raise InTheWay(seen.in_the_way, self.project.root)
        result.success, result.files_restored = True, len(seen.changes)
        result.message = f"dry run: would restore {_files(len(seen.changes))} from {name}"
        return result

    def semantic_rewind(self, rewind_command: str, dry_run: bool = False) -> RollbackResult:
        """Go back to the checkpoint that words mean, such as "rewind to before bug fix" or "rewind 3 steps".

        The result's message begins with how the words were understood.

        Raises:
            UnknownCheckpoint: nothing fits.
            Ambiguous: several checkpoints fit equally well; the message names them.
        """
        understood = understand(rewind_command, self._restorable(), datetime.now(UTC))
        result = self.rollback_to_checkpoint(understood.checkpoint["checkpoint_id"], dry_run)
        result.message = f"understood as {understood.reading}. {result.message}"
        return result

    def find_checkpoint_by_description(self, search_text: str, fuzzy: bool = True) -> str | None:
        """The newest of the checkpoints whose label, description, tags or task fit the words best; None where none does.

        Args:
            fuzzy: False: only those that hold the text as it is, but for capitals.
        """
        known = self._restorable()
        if fuzzy:
            return _id(fitting(search_text, known))
        wanted = search_text.casefold()
        texts = (f"{one['label']}\n{one['description']}\n{' '.join(one['tags'])}".casefold() for one in known)
        return _id([one for one, text in zip(known, texts, strict=True) if wanted in text])

    def find_checkpoint_by_time(self, when: float | timedelta | datetime) -> str | None:
        """The last checkpoint made at a time or before it, and not undone by then; None where there is none.

        Args:
            when: hours ago, a span of time ago, or a time (local where it has no zone).
        """
        if isinstance(when, datetime):
            at = when.astimezone(UTC)
        else:
            at = datetime.now(UTC) - (when if isinstance(when, timedelta) else timedelta(hours=when))
        found = standing_at(self._restorable(), at)
        return None if found is None else str(found["checkpoint_id"])

    def find_checkpoint_by_agent(self, agent_type: str, last_n: int = 1) -> str | None:
        """The last checkpoint of an agent type, or the ``last_n``-th last; None where there are not so many."""
        return _id([one for one in self._restorable() if one["agent_type"] == agent_type], last_n)

    def find_checkpoint_by_category(self, category: CheckpointCategory | str) -> str | None:
        """The last checkpoint of a category; None where there is none."""
        wanted = CheckpointCategory(category)
        return _id([one for one in self._restorable() if _line(one)["category"] == wanted])

    def rewind_by_steps(self, steps: int = 1) -> str | None:
        """The checkpoint that many steps back, 1 being the last one; what was undone is not counted. Nothing is restored.

        Returns:
            Its id; None where there are not so many.
        """
        return _id([one for one in self._restorable() if not one["undone"]], steps)

    def _known(self, log: Log | None = None) -> list[dict[str, Any]]:
        if log is not None:
            return known_checkpoints.list_of(log, None)
        with self._opened() as opened:
            return [] if opened is None else known_checkpoints.list_of(opened, None)

    def _restorable(self) -> list[dict[str, Any]]:
        """Those with files: where nothing is versioned, a checkpoint is a mark in the history and nothing more."""
        return [one for one in self._known() if one["commit"] is not None]

    @contextmanager
    def _opened(self) -> Iterator[Log | None]:
        """The store's log; None where there is no store yet."""
        if not self.project.store.exists():
            yield None
            return
        with self.project.open(actor=ACTOR) as log:
            yield log


def _level(level: CheckpointLevel | str) -> CheckpointLevel:
    try:
        return CheckpointLevel(level)
    except ValueError:
        raise InvalidUsage(f"level is {shown(level)}", hint=f"one of: {', '.join(CheckpointLevel)}") from None


def _line(one: Mapping[str, Any]) -> dict[str, Any]:
    return {**one, "timestamp": one["at"], "category": str(category(one))}


def _of_id(known: Sequence[dict[str, Any]], checkpoint_id: str) -> dict[str, Any]:
    for one in known:
        if one["checkpoint_id"] == checkpoint_id:
            return one
    hint = nearest(str(checkpoint_id), [one["checkpoint_id"] for one in known]) if known else "there is none yet"
    raise UnknownCheckpoint(f"there is no checkpoint {shown(checkpoint_id)}", hint=hint)


def _id(found: Sequence[Mapping[str, Any]], last_n: int = 1) -> str | None:
    return str(found[-last_n]["checkpoint_id"]) if 1 <= last_n <= len(found) else None


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"
