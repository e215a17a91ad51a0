"""Trees of files as plain dicts, and merging by itself: an opinion of its own on what git should make of random edits.

An entry is ``(mode, content)`` with git's modes as text. Text files have slots that stand so far apart that two edits of
different slots merge, and filler that tells which file it is wherever it is moved.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple, TypeVar

T = TypeVar("T")
Entry = tuple[str, bytes]
Tree = dict[bytes, Entry]
FILE, PROGRAM, LINK = "100644", "100755", "120000"
_SLOTS = (0, 5, 10)
_LINES = 11


class Merged(NamedTuple):
    """What a merge should come to. Where ``sure`` is False only the paths outside of ``conflicts`` are foretold."""

    tree: Tree
    conflicts: frozenset[bytes]
    sides: tuple[Tree, Tree, Tree]  # Base, ours and theirs, with a file that one side moved where it went in all three.
    sure: bool = True


def new_text(random: Random) -> bytes:
    """A text file that resembles no other."""
    return b"".join(b"%032x\n" % random.getrandbits(128) for _ in range(_LINES))


def edit_slot(random: Random, content: bytes) -> bytes:
    """The same file with one of its slots changed; what is no text of ours is replaced."""
    lines = content.split(b"\n")
    if len(lines) != _LINES + 1:
        return new_text(random)
    lines[random.choice(_SLOTS)] = b"%032x" % random.getrandbits(128)
    return b"\n".join(lines)


def _filler(content: bytes) -> bytes | None:
    lines = content.split(b"\n")
    if len(lines) != _LINES + 1:
        return None
    return b"\n".join(line for at, line in enumerate(lines) if at not in _SLOTS)


def merge(base: Tree, ours: Tree, theirs: Tree) -> Merged:
    """Merge three trees: path by path, after moved files were found, line by line where both sides changed a text."""
    moved_ours, moved_theirs = _moved(base, ours), _moved(base, theirs)
    base, ours, theirs = dict(base), dict(ours), dict(theirs)
    conflicts: set[bytes] = set()
    sure = True
    for source in moved_ours.keys() | moved_theirs.keys():
        target, other = moved_ours.get(source), moved_theirs.get(source)
        if target is not None and other is not None:
            if target == other:
                base[target] = base.pop(source)
            else:
                conflicts |= {source, target, other}
                sure = False
            continue
        new, still = (target, theirs) if target is not None else (other, ours)
        assert new is not None
        if source not in still or new in still or _kind(still[source]) != "file":
            conflicts |= {source, new}
            sure = False
        elif still[source] != base[source]:
            base[new], still[new] = base.pop(source), still.pop(source)
    tree: Tree = {}
    for path in base.keys() | ours.keys() | theirs.keys():
        if path in conflicts:
            continue
        clean, entry = _merge_path(base.get(path), ours.get(path), theirs.get(path))
        if not clean:
            conflicts.add(path)
            sure = sure and not any(_is_patchwork(side.get(path)) for side in (base, ours, theirs))
        elif entry is not None:
            tree[path] = entry
    present = tree.keys() | conflicts
    for path in sorted(present):
        parts = path.split(b"/")
        above = {b"/".join(parts[:depth]) for depth in range(1, len(parts))} & present
        if above:  # A file stands where a folder has to be.
            conflicts |= {path, *above}
            sure = False
    clean = {path: entry for path, entry in tree.items() if path not in conflicts}
    return Merged(clean, frozenset(conflicts), (base, ours, theirs), sure)


def taken(merged: Merged, side: Literal["ours", "theirs"]) -> Tree:
    """A merge whose conflicts are resolved by one side whole.

    Of a mode that only one side changed there is no conflict, nor of where a file is that only one side moved: it stays
    there, with what the side that is taken has in it under the old name.
    """
    tree = dict(merged.tree)
    base, ours, theirs = merged.sides
    for path in merged.conflicts:
        entry = (ours if side == "ours" else theirs).get(path)
        if entry is None:
            continue
        three = [one[path] for one in (base, ours, theirs) if path in one]
        files = len(three) == 3 and all(_kind(one) == "file" for one in three)
        mode = _three(*(one[0] for one in three)) if files else None
        tree[path] = (mode or entry[0], entry[1])
    return tree


def _moved(base: Tree, side: Tree) -> dict[bytes, bytes]:
    """Where files went that are not where they were."""
    gone = {_identity(entry): path for path, entry in base.items() if path not in side}
    come = {_identity(entry): path for path, entry in side.items() if path not in base}
    return {gone[name]: come[name] for name in gone.keys() & come.keys() if name}


def _identity(entry: Entry) -> bytes:
    """What tells a file wherever it is; of links and empty files git does not ask."""
    return b"" if _kind(entry) == "link" else _filler(entry[1]) or entry[1]


def _is_patchwork(entry: Entry | None) -> bool:
    """Whether a text was made of two, so that the slots say nothing of how git would merge it."""
    return entry is not None and b"\n" in entry[1] and b"\0" not in entry[1] and _filler(entry[1]) is None


def _kind(entry: Entry) -> str:
    return "link" if entry[0] == LINK else "file"


def _merge_path(base: Entry | None, ours: Entry | None, theirs: Entry | None) -> tuple[bool, Entry | None]:
    if ours == theirs or theirs == base:
        return True, ours
    if ours == base:
        return True, theirs
    if ours is None or theirs is None or _kind(ours) != _kind(theirs):
        return False, None
    if base is not None and _kind(base) != _kind(ours):
        base = None
    mode = _three(base[0] if base else "", ours[0], theirs[0])
    content = _three(base[1] if base else b"", ours[1], theirs[1])
    if content is None and base is not None and _kind(ours) == "file":
        content = _lines(base[1], ours[1], theirs[1])
    if mode is None or content is None:
        return False, None
    return True, (mode, content)


def _three(base: T, ours: T, theirs: T) -> T | None:
    if ours in (theirs, base):
        return theirs
    return ours if theirs == base else None


def _lines(base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    if not _filler(base) == _filler(ours) == _filler(theirs) is not None:
        return None
    lines = [_three(*three) for three in zip(*(side.split(b"\n") for side in (base, ours, theirs)), strict=True)]
    return None if None in lines else b"\n".join(line for line in lines if line is not None)


def read(folder: Path) -> Tree:
    """What lies in a folder, but for what git ignores or is git's."""
    found: Tree = {}
    top = os.fsencode(folder)
    for here, folders, names in os.walk(top):
        links = [name for name in folders if os.path.islink(os.path.join(here, name))]
        folders[:] = [name for name in folders if name != b".git"]
        for name in (*names, *links):
            path = os.path.join(here, name)
            if name != b".git" and not name.endswith(b".ignored"):
                found[os.path.relpath(path, top)] = _entry(path)
    return found


def _entry(path: bytes) -> Entry:
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return LINK, os.readlink(path)
    with open(path, "rb") as file:
        return (PROGRAM if mode & 0o100 else FILE), file.read()


def write(folder: Path, path: bytes, entry: Entry | None) -> None:
    """Make one path of a folder what an entry says; whatever stands in its way is removed."""
    top = os.fsencode(folder)
    parts = path.split(b"/")
    for depth in range(1, len(parts)):
        above = os.path.join(top, *parts[:depth])
        if os.path.islink(above) or os.path.isfile(above):
            os.unlink(above)
        os.makedirs(above, exist_ok=True)
    there = os.path.join(top, path)
    if os.path.isdir(there) and not os.path.islink(there):
        for here, folders, names in os.walk(there, topdown=False):
            for name in names:
                os.unlink(os.path.join(here, name))
            for name in folders:
                inside = os.path.join(here, name)
                os.unlink(inside) if os.path.islink(inside) else os.rmdir(inside)
        os.rmdir(there)
    elif os.path.lexists(there):
        os.unlink(there)
    if entry is None:
        return
    mode, content = entry
    if mode == LINK:
        os.symlink(content, there)
        return
    with open(there, "wb") as file:
        file.write(content)
    os.chmod(there, 0o755 if mode == PROGRAM else 0o644)


NAMES = (
    b"a", b"b", b"c", b"d/a", b"d/b", b"d/c", b"d/e/f", b"with space", b"-dash", b"line\nend", b"quote\"'\\", b"tab\there",
    "größe".encode(), b"latin\xe9", b"trail.", b"~tilde", b":(top)", b"*", b"[x]", b"d/#", b"d/!not", b"!not", b"#hash",
    b"d/" + b"n" * 200,
)  # fmt: skip


def random_tree(random: Random) -> Tree:
    """Some files to begin with."""
    tree: Tree = {}
    for path in random.sample(NAMES, random.randint(3, 9)):
        tree[path] = _random_entry(random)
    return tree


def _random_entry(random: Random) -> Entry:
    match random.randrange(8):
        case 0:
            return LINK, b"to-%08x" % random.getrandbits(32)
        case 1:
            return FILE, b"\0binary\0" + random.randbytes(40)
        case 2:
            return random.choice((FILE, PROGRAM)), b""
        case _:
            return random.choice((FILE, FILE, PROGRAM)), new_text(random)


def random_edit(random: Random, base: Tree, tree: Tree) -> dict[bytes, Entry | None]:
    """One change to a tree: path by path, what is there afterwards. A file that was moved is not changed after that.

    Args:
        base: how the tree was when its task began.
    """
    hot = None if random.random() < 0.4 else 3  # Else few would ever change the same file.
    files = sorted(path for path, entry in tree.items() if _kind(entry) == "file" and path != b".gitignore")[:hot]
    known = sorted(path for path in files if base.get(path, ("", b""))[1] == tree[path][1])
    path = random.choice(files or sorted(NAMES))
    match random.randrange(9):
        case 0 if files:
            return {path: None}
        case 1 | 2 | 3 if files:
            path = random.choice(files)
            mode, content = tree[path]
            return {path: (mode, edit_slot(random, content))}
        case 4 if files:
            path = random.choice(files)
            mode, content = tree[path]
            return {path: (FILE if mode == PROGRAM else PROGRAM, content)}
        case 5 if known:
            path = random.choice(known)
            target = os.path.join(os.path.dirname(path), random.choice((b"moved", b"moved too", b"moved-\xff")))
            return {path: None, target: tree[path]} if target not in tree else {}
        case 6:
            return {path: _random_entry(random)}
        case 7 if files:  # A folder where a file was.
            path = random.choice(files)
            return {path + b"/inside": (FILE, new_text(random))} if path.count(b"/") < 2 else {}
        case _:
            return {random.choice(NAMES): _random_entry(random)}


def changed(tree: Tree, edit: dict[bytes, Entry | None]) -> Tree:
    """A tree after an edit: a file makes way for a folder, and a folder for a file."""
    tree = dict(tree)
    for path, entry in edit.items():
        for other in list(tree):
            if entry is not None and (path.startswith(other + b"/") or other.startswith(path + b"/")):
                del tree[other]
        tree.pop(path, None)
        if entry is not None:
            tree[path] = entry
    return tree
