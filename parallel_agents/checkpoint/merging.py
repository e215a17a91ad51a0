"""Merging without a checkout: two commits in, a commit or its conflicts out, and nothing else is touched."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Literal, NamedTuple

from parallel_agents.checkpoint.git import Git, GitFailed, Output, decoded, encoded
from parallel_agents.checkpoint.repository import Repository
from parallel_agents.checkpoint.snapshot import commit_tree, temporary_index, tree_of

Entry = tuple[str, str]  # Mode and object, as a tree has them.
Take = Literal["", "ours", "theirs", "both"]

# The outcome is recorded, so it must not hang on what a user has set.
_SETTINGS = (
    *("-c", "merge.conflictStyle=merge", "-c", "merge.renames=true", "-c", "merge.directoryRenames=conflict"),
    *("-c", "merge.renameLimit=7000", "-c", "merge.renormalize=false", "-c", "merge.verbosity=2"),
)
_COLLISION = "rename involved in collision"  # Of moved content that does not fit together either.
_MOVED_APART = "rename/rename"
# Seven, and one more in a file that was moved to where it clashes.
_MARKERS = re.compile(rb"^(<{7,8}|>{7,8}|\|{7,8})(?= |\r?$)", re.MULTILINE)


class Conflict(NamedTuple):
    """A path that two sides changed in ways that do not fit together. What a side does not have there is None."""

    path: str
    kind: str  # In git's words: content, add/add, modify/delete, rename/rename, rename/delete, binary, ...
    base: Entry | None = None
    ours: Entry | None = None
    theirs: Entry | None = None


class Merge(NamedTuple):
    """What a merge came to. ``commit`` is None where conflicts are left; ``tree`` then holds them with markers."""

    commit: str | None
    tree: str
    conflicts: tuple[Conflict, ...] = ()


class _Probe(NamedTuple):
    """A merge as git reports it."""

    tree: str
    conflicts: tuple[Conflict, ...]
    renamed: dict[str, tuple[str, ...]]  # Where a path had to make way in the tree: its names there.
    commit: str | None = None  # Of the tree, if it was made already.


def merge(
    repository: Repository,
    onto: str,
    work: str,
    *,
    message: str,
    at_us: int,
    take: Take = "",
    files: Mapping[str, bytes | None] = MappingProxyType({}),
    base: str | None = None,
) -> Merge:
    """Merge one commit onto another, objects only.

    Args:
        repository: that holds both.
        onto: what was there first ("ours").
        work: what comes to it ("theirs").
        message: of the merge commit.
        at_us: its date, microseconds since the epoch.
        take: how every path in conflict is resolved: by one side whole, or by the lines of both.
        files: what single paths are to hold, before ``take`` is asked; None removes the path.
        base: an ancestor of both that is known already, so that nobody looks for the nearest one.
    Returns:
        ``work`` itself where it has ``onto`` among its ancestors, ``onto`` where it has ``work``; else a commit of both.
    Raises:
        GitFailed: ``both`` is asked for files without lines, or git failed.
    """
    base = base or (None if files else _merge_base(repository, onto, work))
    if not files and base in (onto, work):
        there = work if base == onto else onto
        return Merge(there, tree_of(repository, there))
    commit = partial(commit_tree, repository, message=message, parents=(onto, work), at_us=at_us)
    probe = _probe(repository, onto, work, None if files else commit)
    tree, left = probe.tree, probe.conflicts
    if files or (left and take):
        tree, left = _resolved(repository, probe, take, files)
    if left:
        return Merge(None, tree, left)
    return Merge(probe.commit or commit(tree), tree)


def leftover_markers(content: bytes) -> bool:
    """Whether a file still holds a line that a merge has put there. A row of seven ``=`` alone is a heading."""
    return _MARKERS.search(content) is not None


def hunks(repository: Repository, onto: str, work: str, path: str) -> str:
    """A file in conflict as a merge leaves it, with markers, for people to read; empty where there is no such file."""
    probe = _probe(repository, onto, work)
    for name in (*probe.renamed.get(path, ()), path):
        said = repository.git().run("cat-file", "blob", f"{probe.tree}:{name}", ok=(0, 128))
        if said.code == 0:
            text = said.out.decode("utf-8", "replace")
            return re.sub(f"^(<{{7,8}} {onto}|>{{7,8}} {work})", _side_name, text, flags=re.MULTILINE)
    return ""


def _side_name(marker: re.Match[str]) -> str:
    row = marker[0].partition(" ")[0]
    return f"{row} {'ours' if row.startswith('<') else 'theirs'}"


def _merge_base(repository: Repository, onto: str, work: str) -> str | None:
    """The nearest common ancestor; None where the histories have nothing in common."""
    said = repository.git().run("merge-base", onto, work, ok=(0, 1))
    return decoded(said.out).strip() or None


def _probe(repository: Repository, onto: str, work: str, commit: Callable[[str], str] | None = None) -> _Probe:
    """Merge two commits.

    Args:
        commit: makes a commit of a tree without conflicts. It does so while git looks for attributes, which are rare.
    """
    git = Git(repository.git_dir, settings=_SETTINGS)
    command = ("merge-tree", "-z", "--write-tree", "--messages", "--allow-unrelated-histories", onto, work)
    said = git.run(*command, ok=(0, 1))
    names = _attribute_names(_merged_paths(said.out, (onto, work)))
    listed = git.begin("--literal-pathspecs", "ls-tree", "-z", onto, "--", *names) if names else None
    made = None
    try:
        made = commit(_tree(said)) if commit is not None and said.code == 0 else None
    finally:
        attributes = [] if listed is None else _attributes(listed())
    if attributes:
        # Without a working tree no attributes are read, and a file may have asked for a merge of its own kind.
        with tempfile.TemporaryDirectory(prefix="attributes-", dir=repository.own_folder()) as folder:
            for name, oid in attributes:
                named = Path(folder) / name
                named.parent.mkdir(parents=True, exist_ok=True)
                named.write_bytes(git.run("cat-file", "blob", oid).out)
            said, made = Git(repository.git_dir, Path(folder), settings=_SETTINGS).run(*command, ok=(0, 1)), None
    if said.code == 0:
        return _Probe(_tree(said), (), {}, made)
    return _as_the_sides_have(repository, _parsed(said.out, (onto, work)), (onto, work))


def _as_the_sides_have(repository: Repository, probe: _Probe, sides: tuple[str, str]) -> _Probe:
    """Put right what git says that a side has at a path where files that were moved clash.

    It merges the content of such a file first, and tells the outcome as the side's own: with the marks of a conflict, or
    with what the other side has, where there are no lines. Lines that fit together stay, as they are not in conflict.
    """
    if not any(conflict.kind in (_COLLISION, _MOVED_APART) for conflict in probe.conflicts):
        return probe
    git = repository.git()
    marks = re.compile("|".join(rf"^[<>]+ {re.escape(side)}:" for side in sides).encode(), re.MULTILINE)

    def put_right(conflict: Conflict, side: str, entry: Entry | None) -> Entry | None:
        if entry is None or not entry[0].startswith("100"):
            return entry
        if conflict.kind != _COLLISION and not marks.search(git.run("cat-file", "blob", entry[1]).out):
            return entry
        own = _entry_in(repository, side, conflict.path)
        return (entry[0], own[1]) if own and own[0].startswith("100") else entry

    onto, work = sides
    conflicts = tuple(
        one._replace(ours=put_right(one, onto, one.ours), theirs=put_right(one, work, one.theirs))
        for one in probe.conflicts
    )
    return probe._replace(conflicts=conflicts)


def _tree(said: Output) -> str:
    return said.out.partition(b"\0")[0].decode()


def _merged_paths(out: bytes, sides: tuple[str, str]) -> set[str]:
    """The paths whose content was merged, with or without a conflict."""
    messages = out.partition(b"\0\0")[2]
    return {_original(decoded(path), sides) for paths, _, _ in _messages(messages) for path in paths}


def _attribute_names(paths: Collection[str]) -> list[str]:
    """The files ``.gitattributes`` that may speak of some paths."""
    folders = {folder for path in paths for folder in PurePosixPath(path).parents}
    return sorted(str(folder / ".gitattributes") for folder in folders)


def _attributes(listed: Output) -> list[tuple[str, str]]:
    """Those of them that a commit has: their names and objects."""
    entries = (line.partition(b"\t") for line in listed.out.split(b"\0") if line.startswith(b"100"))
    return [(decoded(name), about.split(b" ")[2].decode()) for about, _, name in entries]


def _messages(stream: bytes) -> Iterator[tuple[list[bytes], str, str]]:
    """The messages of a merge: a count of paths, the paths, a stable type and a sentence, one after another."""
    fields = iter(stream.split(b"\0"))
    for count in fields:
        if count.strip():
            paths = [next(fields) for _ in range(int(count))]
            yield paths, decoded(next(fields)), decoded(next(fields))


def _parsed(out: bytes, sides: tuple[str, str]) -> _Probe:
    """Read what `merge-tree -z --messages` printed: the tree, stages of paths, and messages of a type each."""
    head, _, messages = out.partition(b"\0\0")
    tree, *stages = head.split(b"\0")
    kinds = _kinds(messages, sides)
    entries: dict[str, list[Entry | None]] = {}
    renamed: dict[str, set[str]] = {}
    for line in stages:
        about, _, name = line.partition(b"\t")
        mode, oid, stage = about.decode().split(" ")
        path = _original(decoded(name), sides)
        if path != decoded(name):
            renamed.setdefault(path, set()).add(decoded(name))
        entries.setdefault(path, [None, None, None])[int(stage) - 1] = (mode, oid)
    conflicts = tuple(Conflict(path, kinds.get(path, "content"), *three) for path, three in sorted(entries.items()))
    return _Probe(tree.decode(), conflicts, {path: tuple(sorted(names)) for path, names in renamed.items()})


def _kinds(stream: bytes, sides: tuple[str, str]) -> dict[str, str]:
    """The kind of conflict of each path, in the words of the first message about it."""
    kinds: dict[str, str] = {}
    for paths, stable, sentence in _messages(stream):
        if stable == "CONFLICT (binary)":
            kind = "binary"
        elif named := re.match(r"CONFLICT \(([^)]*)\)", sentence):
            kind = named[1]
        else:
            continue
        for path in paths:
            kinds.setdefault(_original(decoded(path), sides), kind)
    return kinds


def _original(path: str, sides: tuple[str, str]) -> str:
    """The path as the sides know it. Where a file is in another one's way, git puts it at `path~side`."""
    found = re.match(
        rf"(.*)~(?:{'|'.join(re.escape(side.replace('/', '_')) for side in sides)})(?:_\d+)?\Z", path, re.S
    )
    return found[1] if found else path


def _resolved(
    repository: Repository, probe: _Probe, take: Take, files: Mapping[str, bytes | None]
) -> tuple[str, tuple[Conflict, ...]]:
    """The tree with conflicts resolved, and the conflicts that are left."""
    chosen: dict[str, Entry | None] = {}
    conflicts = {conflict.path: conflict for conflict in probe.conflicts}
    for path, content in files.items():
        mode = _file_mode(conflicts[path]) if path in conflicts else _mode_in(repository, probe.tree, path)
        chosen[path] = None if content is None else (mode, _blob(repository, content))
    for path, conflict in conflicts.items():
        if path not in chosen and take:
            chosen[path] = _taken(repository, conflict, take)
    left = tuple(conflict for conflict in probe.conflicts if conflict.path not in chosen)
    nothing = ("0", "0" * len(probe.tree))
    records = [(name, nothing) for path in chosen for name in (path, *probe.renamed.get(path, ()))]
    records += [(path, entry) for path, entry in chosen.items() if entry]
    lines = b"".join(encoded(f"{mode} {oid}\t{name}\0") for name, (mode, oid) in records)
    with temporary_index(repository) as index:
        git = Git(repository.git_dir, index=index)
        git.run("read-tree", probe.tree)
        git.run("update-index", "-z", "--index-info", stdin=lines)
        return git.text("write-tree"), left


def _taken(repository: Repository, conflict: Conflict, take: Take) -> Entry | None:
    """What one way of resolving makes of a path."""
    if conflict.kind == "file location":  # Not a disagreement about the file, which only one side has.
        return conflict.ours or conflict.theirs
    if take == "both":
        return _union(repository, conflict)
    entry = conflict.ours if take == "ours" else conflict.theirs
    if entry and all(side and side[0].startswith("100") for side in conflict[2:]):
        return _file_mode(conflict), entry[1]  # Who may execute it is not in conflict, whoever has changed it.
    return entry


def _union(repository: Repository, conflict: Conflict) -> Entry:
    """The lines of both sides, in order, where both have a text file."""
    ours, theirs, base = conflict.ours, conflict.theirs, conflict.base
    if not ours or not theirs or not all(entry[0].startswith("100") for entry in (ours, theirs)):
        raise GitFailed(
            f"{conflict.path} cannot be taken from both sides ({conflict.kind})",
            hint="take ours or theirs, or name a file",
        )
    git = repository.git()
    with tempfile.TemporaryDirectory(prefix="union-", dir=repository.own_folder()) as folder:
        names = [Path(folder) / side for side in ("ours", "base", "theirs")]
        for name, entry in zip(names, (ours, base, theirs), strict=True):
            text = entry is not None and entry[0].startswith("100")
            name.write_bytes(git.run("cat-file", "blob", entry[1]).out if text and entry else b"")
        said = git.run("merge-file", "-p", "--union", *map(str, names), ok=range(256))
    if said.code:
        raise GitFailed(
            f"{conflict.path} cannot be taken from both sides: it has no lines",
            hint="take ours or theirs, or name a file",
        )
    return _file_mode(conflict), _blob(repository, said.out)


def _file_mode(conflict: Conflict) -> str:
    """The mode of a file that is written anew: executable where a side has made it so, or both had it so."""
    base = conflict.base[0] if conflict.base else ""
    modes = [entry[0] for entry in (conflict.ours, conflict.theirs) if entry and entry[0].startswith("100")]
    changed = [mode for mode in modes if mode != base]
    return (changed or modes or ["100644"])[0]


def _mode_in(repository: Repository, tree: str, path: str) -> str:
    """The mode of a file that is replaced; that of a plain file where there is none, or no file."""
    entry = _entry_in(repository, tree, path)
    return entry[0] if entry and entry[0].startswith("100") else "100644"


def _entry_in(repository: Repository, tree: str, path: str) -> Entry | None:
    """What a tree or a commit has at a path."""
    said = repository.git().run("--literal-pathspecs", "ls-tree", "-z", tree, "--", path).out
    if not said:
        return None
    mode, _, oid = said.partition(b"\t")[0].decode().split(" ")
    return mode, oid


def _blob(repository: Repository, content: bytes) -> str:
    return decoded(repository.git().run("hash-object", "-w", "--stdin", stdin=content).out).strip()
