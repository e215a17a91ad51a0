"""Merging two commits without a checkout: what fits together does, what does not is told by kind, and resolved as asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from gitrepos import AT_US, head, make_project, user_git

from parallel_agents.checkpoint.git import GitFailed, decoded, encoded
from parallel_agents.checkpoint.merging import Conflict, Merge, hunks, leftover_markers, merge
from parallel_agents.checkpoint.repository import Repository

Files = dict[str, str | bytes | tuple[str, str]]  # Content, or mode and content.
LINES = "1\n2\n3\n4\n5\n6\n7\n8\n9\n"
GONE: Files = {}


def commit(project: Repository, files: Files, *parents: str, name: str = "made") -> str:
    """A commit that holds exactly these files."""
    lines = [f"commit refs/{name}\nmark :1\ncommitter U <u@localhost> 1700000000 +0000\ndata 1\nm\n".encode()]
    lines += [f"{'merge' if number else 'from'} {parent}\n".encode() for number, parent in enumerate(parents)]
    lines.append(b"deleteall\n")
    for path, entry in files.items():
        mode, content = entry if isinstance(entry, tuple) else ("100644", entry)
        raw = content.encode() if isinstance(content, str) else content
        lines.append(encoded(f'M {mode} inline "{path}"\ndata {len(raw)}\n') + raw + b"\n")
    return user_git(project.top, "fast-import", "--quiet", "--force", stdin=b"".join([*lines, b"get-mark :1\n"]))


def sides(project: Repository, base: Files, ours: Files, theirs: Files) -> tuple[str, str]:
    """Two commits that left one base."""
    start = commit(project, base)
    return commit(project, ours, start), commit(project, theirs, start)


def files_in(project: Repository, tree: str) -> dict[str, tuple[str, str]]:
    """Mode and content of every file of a commit or tree."""
    found = {}
    for line in project.git().run("ls-tree", "-r", "-z", tree).out.split(b"\0")[:-1]:
        about, _, path = line.partition(b"\t")
        mode, _, oid = about.decode().split()
        found[decoded(path)] = (mode, decoded(project.git().run("cat-file", "blob", oid).out))
    return found


def merged(project: Repository, pair: tuple[str, str], **how: object) -> Merge:
    """The merge of two sides."""
    return merge(project, *pair, message="merge", at_us=AT_US, **how)  # type: ignore[arg-type]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository of the user; commits are made beside theirs."""
    return make_project(tmp_path, monkeypatch)


def test_changes_that_do_not_meet_are_put_together(project: Repository) -> None:
    """In one file too; the commit has both as parents, and is the same whenever it is made."""
    base: Files = {"a": LINES, "gone": "x\n", "b/c": "x\n", "mode": "x\n"}
    ours: Files = {**base, "a": "ours\n" + LINES, "new/ours": "o"}
    theirs: Files = {"a": LINES + "theirs\n", "b/c": "y\n", "new/theirs": "t", "mode": ("100755", "x\n")}
    pair = sides(project, base, ours, theirs)
    made = merged(project, pair)
    assert made.conflicts == ()
    assert made.commit is not None
    assert {path: content for path, (_, content) in files_in(project, made.commit).items()} == {
        "a": f"ours\n{LINES}theirs\n",
        "b/c": "y\n",
        "mode": "x\n",
        "new/ours": "o",
        "new/theirs": "t",
    }
    assert files_in(project, made.tree)["mode"][0] == "100755"
    assert user_git(project.top, "log", "-1", "--format=%P|%s|%an|%ct|%at", made.commit) == (
        f"{pair[0]} {pair[1]}|merge|parallel-agents|1700000000|1700000000"
    )
    assert merged(project, pair) == made


def test_a_base_that_is_known_makes_no_difference(project: Repository) -> None:
    """The same merge as where it is looked for, and the one that holds the other where there is such a one."""
    start = commit(project, {"a": "1\n", "b": "1\n"})
    ours, theirs = commit(project, {"a": "2\n", "b": "1\n"}, start), commit(project, {"a": "1\n", "b": "2\n"}, start)
    looked, known = merged(project, (ours, theirs)), merged(project, (ours, theirs), base=start)
    assert known == looked
    assert known.commit not in (None, ours, theirs)
    assert merged(project, (start, theirs), base=start).commit == theirs
    assert merged(project, (ours, start), base=start).commit == ours


def test_what_holds_the_other_already_is_the_merge(project: Repository) -> None:
    """No commit is made of nothing."""
    start = commit(project, {"a": "1"})
    later = commit(project, {"a": "2"}, start)
    tree = user_git(project.top, "rev-parse", f"{later}^{{tree}}")
    assert merged(project, (start, later)) == Merge(later, tree)
    assert merged(project, (later, start)) == Merge(later, tree)
    assert merged(project, (later, later)) == Merge(later, tree)
    resolved = merged(project, (start, later), files={"a": b"3"})
    assert resolved.commit not in (None, later)
    assert files_in(project, resolved.tree)["a"] == ("100644", "3")


@pytest.mark.parametrize("theirs", ["2", "1"])
def test_histories_with_nothing_in_common_can_be_merged(project: Repository, theirs: str) -> None:
    """As if both had begun with nothing."""
    one, two = commit(project, {"a": "1", "b": "x"}), commit(project, {"a": theirs, "c": "y"})
    made = merged(project, (one, two))
    if theirs == "1":
        assert set(files_in(project, made.tree)) == {"a", "b", "c"}
        assert made.commit is not None
    else:
        assert [(conflict.path, conflict.kind, conflict.base) for conflict in made.conflicts] == [
            ("a", "add/add", None)
        ]


def test_a_file_that_one_side_renamed_takes_the_changes_of_the_other(project: Repository) -> None:
    """To its new place."""
    pair = sides(project, {"old": LINES}, {"new": LINES}, {"old": LINES + "theirs\n"})
    assert files_in(project, merged(project, pair).tree) == {"new": ("100644", LINES + "theirs\n")}


# Base, ours, theirs; the conflicts as path and kind; what taking ours and theirs leaves.
CASES: dict[str, tuple[Files, Files, Files, list[tuple[str, str]], Files, Files]] = {
    "content": ({"f": "1\n"}, {"f": "o\n"}, {"f": "t\n"}, [("f", "content")], {"f": "o\n"}, {"f": "t\n"}),
    "add/add": ({}, {"f": "o\n"}, {"f": "t\n"}, [("f", "add/add")], {"f": "o\n"}, {"f": "t\n"}),
    "binary": ({"f": "\0"}, {"f": "\0o"}, {"f": "\0t"}, [("f", "binary")], {"f": "\0o"}, {"f": "\0t"}),
    "modify/delete": ({"f": LINES}, {}, {"f": LINES + "t\n"}, [("f", "modify/delete")], GONE, {"f": LINES + "t\n"}),
    "delete/modify": ({"f": LINES}, {"f": LINES + "o\n"}, {}, [("f", "modify/delete")], {"f": LINES + "o\n"}, GONE),
    "rename/rename": (
        {"f": LINES},
        {"o": LINES},
        {"t": LINES},
        [("f", "rename/rename"), ("o", "rename/rename"), ("t", "rename/rename")],
        {"o": LINES},
        {"t": LINES},
    ),
    "content of a file that ours moved": (
        {"f": LINES},
        {"o": LINES + "o\n"},
        {"f": LINES + "t\n"},
        [("o", "content")],
        {"o": LINES + "o\n"},
        {"o": LINES + "t\n"},
    ),
    "content of a file that theirs moved": (
        {"f": LINES},
        {"f": LINES + "o\n"},
        {"t": LINES + "t\n"},
        [("t", "content")],
        {"t": LINES + "o\n"},
        {"t": LINES + "t\n"},
    ),
    "rename/delete": ({"f": LINES}, {"o": LINES}, {}, [("o", "rename/delete")], {"o": LINES}, GONE),
    "two renamed to one": (
        {"a": LINES, "b": "b" + LINES},
        {"f": LINES, "b": "b" + LINES},
        {"a": LINES, "f": "b" + LINES},
        [("f", "add/add")],
        {"f": LINES},
        {"f": "b" + LINES},
    ),
    "mode and content": (
        {"f": "1\n"},
        {"f": ("100755", "o\n")},
        {"f": "t\n"},
        [("f", "content")],
        {"f": ("100755", "o\n")},
        {"f": ("100755", "t\n")},
    ),
    "add/add with modes": (
        {},
        {"f": ("100755", "o\n")},
        {"f": "t\n"},
        [("f", "add/add")],
        {"f": ("100755", "o\n")},
        {"f": "t\n"},
    ),
    "link and file": (
        {"f": "1\n"},
        {"f": ("120000", "o")},
        {"f": "t\n"},
        [("f", "distinct types")],
        {"f": ("120000", "o")},
        {"f": "t\n"},
    ),
    "links": (
        {"f": ("120000", "1")},
        {"f": ("120000", "o")},
        {"f": ("120000", "t")},
        [("f", "content")],
        {"f": ("120000", "o")},
        {"f": ("120000", "t")},
    ),
    "file and folder": (
        {"x": "1"},
        {"x": "1", "f": "o"},
        {"x": "1", "f/in": "t"},
        [("f", "file/directory")],
        {"x": "1", "f": "o"},
        {"x": "1", "f/in": "t"},
    ),
    "folder and file": (
        {"x": "1"},
        {"x": "1", "f/in": "o"},
        {"x": "1", "f": "t"},
        [("f", "file/directory")],
        {"x": "1", "f/in": "o"},
        {"x": "1", "f": "t"},
    ),
    "a file in a folder that was moved": (
        {"d/1": LINES, "d/2": "2" + LINES},
        {"e/1": LINES, "e/2": "2" + LINES},
        {"d/1": LINES, "d/2": "2" + LINES, "d/3": "3\n"},
        [("e/3", "file location")],
        {"e/1": LINES, "e/2": "2" + LINES, "e/3": "3\n"},
        {"e/1": LINES, "e/2": "2" + LINES, "e/3": "3\n"},
    ),
}


# As in CASES: where a file went is in conflict, and what is in it as well.
NESTED: dict[str, tuple[Files, Files, Files, list[tuple[str, str]], Files, Files]] = {
    "moved to two places": (
        {"f": LINES},
        {"o": LINES.replace("5", "o")},
        {"t": ("100755", LINES.replace("5", "t"))},
        [("f", "rename/rename"), ("o", "rename/rename"), ("t", "rename/rename")],
        {"o": ("100755", LINES.replace("5", "o"))},
        {"t": ("100755", LINES.replace("5", "t"))},
    ),
    "moved by ours to where theirs has another": (
        {"a": LINES},
        {"f": LINES.replace("5", "o")},
        {"a": LINES.replace("5", "t"), "f": "other\n"},
        [("f", "rename involved in collision")],
        {"f": LINES.replace("5", "o")},
        {"f": "other\n"},
    ),
    "moved by theirs to where ours has another": (
        {"a": LINES},
        {"a": LINES.replace("5", "o"), "f": "other\n"},
        {"f": LINES.replace("5", "t")},
        [("f", "rename involved in collision")],
        {"f": "other\n"},
        {"f": LINES.replace("5", "t")},
    ),
    "two moved to one place": (
        {"a": LINES, "b": "b" + LINES},
        {"f": LINES.replace("5", "o"), "b": "b" + LINES.replace("5", "o")},
        {"a": LINES.replace("5", "t"), "f": "b" + LINES.replace("5", "t")},
        [("f", "rename involved in collision")],
        {"f": LINES.replace("5", "o")},
        {"f": "b" + LINES.replace("5", "t")},
    ),
    "without lines, moved by theirs to where ours has another": (
        {"a": "\0" + LINES},
        {"a": "\0" + LINES.replace("5", "o"), "f": "other\n"},
        {"f": "\0" + LINES.replace("5", "t")},
        [("f", "rename involved in collision")],
        {"f": "other\n"},
        {"f": "\0" + LINES.replace("5", "t")},
    ),
    "without lines, moved to two places": (
        {"f": "\0" + LINES},
        {"o": "\0" + LINES.replace("5", "o")},
        {"t": "\0" + LINES.replace("5", "t")},
        [("f", "binary"), ("o", "rename/rename"), ("t", "rename/rename")],
        {"o": "\0" + LINES.replace("5", "o")},
        {"t": "\0" + LINES.replace("5", "t")},
    ),
    "moved to two places, with lines that fit together": (
        {"f": LINES},
        {"o": LINES.replace("1", "o")},
        {"t": LINES.replace("9", "t")},
        [("f", "rename/rename"), ("o", "rename/rename"), ("t", "rename/rename")],
        {"o": LINES.replace("1", "o").replace("9", "t")},
        {"t": LINES.replace("1", "o").replace("9", "t")},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_conflict_is_told_by_path_and_kind_and_resolved_by_side(project: Repository, case: str) -> None:
    """Of each kind that there is; what is not in conflict stays."""
    check_case(project, CASES[case])


@pytest.mark.parametrize("case", NESTED)
def test_a_side_is_taken_without_what_git_merged_of_a_moved_file(project: Repository, case: str) -> None:
    """No marks of a conflict are left in it, and none of the other side's content that does not fit."""
    check_case(project, NESTED[case])


def test_both_sides_of_moved_files_that_clash_are_taken_without_marks(project: Repository) -> None:
    """Each as that side has it."""
    base, ours, theirs, *_ = NESTED["moved by ours to where theirs has another"]
    made = merged(project, sides(project, base, ours, theirs), take="both")
    assert files_in(project, made.tree) == {"f": ("100644", LINES.replace("5", "o") + "other\n")}


def check_case(project: Repository, case: tuple[Files, Files, Files, list[tuple[str, str]], Files, Files]) -> None:
    """The conflicts are those of a case, and either side can be taken; what is not in conflict stays."""
    base, ours, theirs, expected, taken_ours, taken_theirs = case
    rest: Files = {"rest": "r"}
    pair = sides(project, {**base, **rest}, {**ours, **rest, "own": "o"}, {**theirs, **rest})
    found = merged(project, pair)
    assert found.commit is None
    assert [(conflict.path, conflict.kind) for conflict in found.conflicts] == expected
    for take, wanted in (("ours", taken_ours), ("theirs", taken_theirs)):
        made = merged(project, pair, take=take)
        assert made.conflicts == ()
        assert made.commit is not None
        assert files_in(project, made.commit) == {
            path: entry if isinstance(entry, tuple) else ("100644", entry)
            for path, entry in {**wanted, **rest, "own": "o"}.items()
        }


def test_a_conflict_has_what_each_side_has(project: Repository) -> None:
    """As mode and object."""
    start, ours, theirs = ({"f": "1\n"}, {"f": "o\n"}, {"f": ("120000", "t")})
    (conflict,) = merged(project, sides(project, start, ours, theirs)).conflicts  # type: ignore[arg-type]

    def content(entry: tuple[str, str] | None) -> tuple[str, str]:
        assert entry is not None
        return entry[0], decoded(project.git().run("cat-file", "blob", entry[1]).out)

    assert [content(entry) for entry in conflict[2:]] == [("100644", "1\n"), ("100644", "o\n"), ("120000", "t")]
    (conflict,) = merged(project, sides(project, {"f": "1\n"}, {"f": "o\n"}, {})).conflicts
    assert conflict.theirs is None
    assert content(conflict.ours) == ("100644", "o\n")


def test_names_of_any_kind_can_be_in_conflict(project: Repository) -> None:
    """Also those that look like what git makes of a name."""
    names = ["a b", "a\\tb", "a\\nb", "\\303\\251", "\\377", "f~ours", "1\\n"]
    pair = sides(project, {}, dict.fromkeys(names, "o\n"), dict.fromkeys(names, "t\n"))
    found = merged(project, pair)
    real = {"a b", "a\tb", "a\nb", "é", "\udcff", "f~ours", "1\n"}
    assert {conflict.path for conflict in found.conflicts} == real
    made = merged(project, pair, take="theirs")
    assert files_in(project, made.tree) == dict.fromkeys(real, ("100644", "t\n"))
    made = merged(project, pair, files=dict.fromkeys(real, b"x"))
    assert files_in(project, made.tree) == dict.fromkeys(real, ("100644", "x"))


def test_both_sides_of_a_text_can_be_taken(project: Repository) -> None:
    """Line by line, ours first; the permission that a side has changed too."""
    base: Files = {"f": LINES, "g": "x\n", "h": "x\n"}
    ours: Files = {"f": LINES.replace("5", "ours"), "g": ("100755", "x\no\n"), "h": "o\n", "new": "a\n"}
    theirs: Files = {"f": "0\n" + LINES.replace("5", "theirs"), "g": "x\nt\n", "h": ("100755", "t\n"), "new": "b\n"}
    made = merged(project, sides(project, base, ours, theirs), take="both")
    assert made.commit is not None
    assert files_in(project, made.tree) == {
        "f": ("100644", "0\n" + LINES.replace("5", "ours\ntheirs")),
        "g": ("100755", "x\no\nt\n"),
        "h": ("100755", "o\nt\n"),
        "new": ("100644", "a\nb\n"),
    }


@pytest.mark.parametrize(
    "case", ["binary", "modify/delete", "rename/rename", "link and file", "links", "file and folder"]
)
def test_what_has_no_lines_is_not_taken_from_both(project: Repository, case: str) -> None:
    """It is named, with what can be done instead."""
    base, ours, theirs, *_ = CASES[case]
    with pytest.raises(GitFailed, match=r"^\S+ cannot be taken from both sides") as caught:
        merged(project, sides(project, base, ours, theirs), take="both")
    assert "take ours or theirs" in caught.value.hint


def test_single_files_can_be_decided(project: Repository) -> None:
    """By content or as gone, in conflict or not; the rest by side, or left."""
    base: Files = {"a": "1\n", "b": "1\n", "c": ("100755", "1\n"), "d": "1\n", "clean": "1\n", "run": ("100755", "")}
    ours: Files = {
        "a": "o\n",
        "b": "o\n",
        "c": ("100755", "o\n"),
        "d": "o\n",
        "clean": "1\n",
        "df": "o",
        "run": ("100755", ""),
    }
    theirs: Files = {
        "a": "t\n",
        "b": "t\n",
        "c": ("100755", "t\n"),
        "d": "t\n",
        "clean": "t\n",
        "df/in": "t",
        "run": ("100755", ""),
    }
    pair = sides(project, base, ours, theirs)
    files = {"a": b"mine\n", "b": None, "c": b"", "clean": None, "df": None, "added/deep": b"\0", "run": b"x"}
    made = merged(project, pair, files=files)
    assert made.commit is None
    assert [conflict.path for conflict in made.conflicts] == ["d"]
    assert set(files_in(project, made.tree)) == {"a", "c", "d", "df/in", "added/deep", "run"}
    made = merged(project, pair, files={**files, "df": b"file"}, take="theirs")
    assert made.conflicts == ()
    assert files_in(project, made.tree) == {
        "a": ("100644", "mine\n"),
        "c": ("100755", ""),
        "d": ("100644", "t\n"),
        "df": ("100644", "file"),
        "added/deep": ("100644", "\0"),
        "run": ("100755", "x"),
    }


def test_attributes_of_the_project_say_how_files_are_merged(project: Repository) -> None:
    """In whichever folder they stand; also of files that would fit together by themselves."""
    attributes: Files = {
        ".gitattributes": "LOG merge=union\n*.lock -merge\n",
        "deep/.gitattributes": "*.txt merge=union\n",
        "other/.gitattributes": "* -merge\n",
    }
    base: Files = {**attributes, "LOG": "1\n", "deep/a/x.txt": "1\n", "a.lock": LINES, "x.txt": LINES}
    ours: Files = {**base, "LOG": "1\no\n", "deep/a/x.txt": "1\no\n", "a.lock": "o\n" + LINES, "x.txt": "o\n" + LINES}
    theirs: Files = {**base, "LOG": "1\nt\n", "deep/a/x.txt": "1\nt\n", "a.lock": LINES + "t\n", "x.txt": LINES + "t\n"}
    made = merged(project, sides(project, base, ours, theirs))
    assert [(conflict.path, conflict.kind) for conflict in made.conflicts] == [("a.lock", "binary")]
    files = files_in(project, made.tree)
    assert {name: files[name][1] for name in ("LOG", "deep/a/x.txt", "x.txt")} == {
        "LOG": "1\no\nt\n",
        "deep/a/x.txt": "1\no\nt\n",
        "x.txt": f"o\n{LINES}t\n",
    }


def test_a_file_that_is_not_to_be_merged_is_a_conflict_by_itself(project: Repository) -> None:
    """Where nothing else is one."""
    base: Files = {".gitattributes": "*.lock -merge\n", "a.lock": LINES}
    made = merged(project, sides(project, base, {**base, "a.lock": "o\n" + LINES}, {**base, "a.lock": LINES + "t\n"}))
    assert [(conflict.path, conflict.kind) for conflict in made.conflicts] == [("a.lock", "binary")]


def test_a_name_that_git_would_make_is_taken_already(project: Repository) -> None:
    """Then it makes another one, which is known too."""
    base = commit(project, {"x": "1"})
    ours = commit(project, {"x": "1", "f\\ng": "o\n"}, base)
    theirs = commit(project, {"x": "1", "f\\ng/in": "t\n", f"f\\ng~{ours}": "taken\n"}, base)
    assert [conflict.path for conflict in merged(project, (ours, theirs)).conflicts] == ["f\ng"]
    assert hunks(project, ours, theirs, "f\ng") == "o\n"
    files = {"x": ("100644", "1"), f"f\ng~{ours}": ("100644", "taken\n")}
    made = merged(project, (ours, theirs), take="ours")
    assert files_in(project, made.tree) == {**files, "f\ng": ("100644", "o\n")}
    made = merged(project, (ours, theirs), take="theirs")
    assert files_in(project, made.tree) == {**files, "f\ng/in": ("100644", "t\n")}


def test_settings_of_the_user_do_not_change_a_merge(project: Repository) -> None:
    """It is recorded, so that it must come out the same everywhere."""
    pair = sides(project, {"old": LINES, "f": "1\n"}, {"new": LINES, "f": "o\n"}, {"old": LINES + "t\n", "f": "t\n"})
    expected = merged(project, pair)
    for name, value in (
        ("merge.renames", "false"),
        ("merge.conflictStyle", "diff3"),
        ("merge.directoryRenames", "true"),
    ):
        user_git(project.top, "config", name, value)
    assert merged(project, pair) == expected
    assert [conflict.path for conflict in expected.conflicts] == ["f"]


def test_people_read_a_conflict_with_its_markers(project: Repository) -> None:
    """Where the sides have names; a file that had to make way is found as well."""
    base: Files = {"f": LINES, "gone": LINES}
    ours: Files = {"f": LINES.replace("5", "ours"), "df": "file\n"}
    theirs: Files = {"f": LINES.replace("5", "theirs"), "gone": LINES + "t\n", "df/in": "x"}
    pair = sides(project, base, ours, theirs)
    text = LINES.replace("5\n", "<<<<<<< ours\nours\n=======\ntheirs\n>>>>>>> theirs\n")
    assert hunks(project, *pair, "f") == text
    assert hunks(project, *pair, "gone") == LINES + "t\n"
    assert hunks(project, *pair, "df") == "file\n"
    assert hunks(project, *pair, "nothing") == ""
    pair = sides(project, {"f": LINES}, {"o": LINES.replace("5", "ours")}, {"t": LINES.replace("5", "theirs")})
    text = LINES.replace("5\n", "<<<<<<<< ours:o\nours\n========\ntheirs\n>>>>>>>> theirs:t\n")
    assert hunks(project, *pair, "o") == hunks(project, *pair, "t") == text


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"a\n<<<<<<< ours\nb\n=======\nc\n>>>>>>> theirs\n", True),
        (b"a\r\n>>>>>>> theirs\r\n", True),
        (b"<<<<<<<\n", True),
        (b"a\n<<<<<<<< ours:moved\nb\n", True),
        (b"||||||| base\n", True),
        (b"Heading\n=======\n", False),
        (b" <<<<<<< quoted\n", False),
        (b"<<<<<<<<<< more\n", False),
        (b"\0\1", False),
        (b"", False),
    ],
)
def test_markers_that_are_left_over_are_found(content: bytes, found: bool) -> None:
    """And nothing that is none."""
    assert leftover_markers(content) is found


def test_a_missing_commit_is_told(project: Repository) -> None:
    """In git's words."""
    with pytest.raises(GitFailed, match="git merge-base failed"):
        merged(project, (head(project), "0123456789" * 4))


def test_a_conflict_of_a_plain_file_is_a_tuple() -> None:
    """So that it can be stored and compared."""
    assert Conflict("a", "content") == ("a", "content", None, None, None)
