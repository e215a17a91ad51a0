"""Whether declared scopes meet: by examples, and against trying every small path."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel_agents.scheduler.scopes import meet

MEETING = [
    ("docs/**", "docs/api.yaml"),
    ("docs/**", "docs/a/b/c.md"),
    ("docs/**", "docs"),
    ("docs", "docs/api.yaml"),
    ("docs/", "docs/a/b.md"),
    ("*/x", "x"),
    ("docs", "docs/*.md"),
    ("./docs//a.md", "docs/a.md"),
    (".", "src/x.py"),
    ("**", "a"),
    ("**/*.py", "setup.py"),
    ("**/*.py", "src/a/b.py"),
    ("**/tests/**", "src/tests/unit/x.py"),
    ("src/**/test_*.py", "src/a/*_x.py"),
    ("src/*.py", "src/m*"),
    ("src/*/", "src/a/b/c"),
    ("src/?.py", "src/[a-c].py"),
    ("src/[!a].py", "src/b.py"),
    ("src/[]a].py", "src/].py"),
    ("src/[!]a].py", "src/b.py"),
    ("src/[a-].py", "src/-.py"),
    ("a*b*c", "*bb*"),
    ("app/[id]/page.tsx", "app/[id]/*.tsx"),
    ("app/[id]/page.tsx", "app/[[]id]/page.tsx"),
    ("app/[id]/page.tsx", "app/i/page.tsx"),
    ("[", "["),
    ("a**b", "axxb"),
    ("ü/*", "ü/é"),
]
APART = [
    ("src/*.py", "src/a/b.py"),
    ("src/*.py", "src/*.js"),
    ("docs/**", "doc"),
    ("docs", "docs2/a"),
    ("docs/**", "src/docs/x"),
    ("src/**/*.py", "src/**/*.pyi"),
    ("src/?.py", "src/ab.py"),
    ("src/[a-c].py", "src/d.py"),
    ("src/[!a].py", "src/a.py"),
    ("[ab]", "[cd]"),
    ("[!a]", "a"),
    ("[!a-db]", "c"),
    ("*a", "*b"),
    ("a**b/x", "a/b/x"),
    ("*/x", "x*"),
    ("README.md", "readme.md"),
    ("*", "a/b"),
    ("app/[id]/x", "app/[slug]/x"),
]


@pytest.mark.parametrize(("one", "other"), MEETING)
def test_scopes_that_can_name_the_same_path_meet(one: str, other: str) -> None:
    """Whichever is asked first."""
    assert meet([one], [other])
    assert meet([other], [one])


@pytest.mark.parametrize(("one", "other"), APART)
def test_scopes_that_share_no_path_do_not_meet(one: str, other: str) -> None:
    """So their tasks may run at once."""
    assert not meet([one], [other])
    assert not meet([other], [one])


def test_lists_meet_where_any_two_of_their_globs_do() -> None:
    """A task that declares nothing meets nobody."""
    assert meet(["a/*", "docs/**"], ["b/*", "docs/x"])
    assert not meet(["a/*", "docs/**"], ["b/*", "src/x"])
    assert not meet([], ["**"])
    assert not meet(["**"], [])


def test_globs_made_to_take_long_do_not() -> None:
    """Each pair of places is looked at once: trying all ways would never end."""
    assert not meet(["*a" * 60 + "b"], ["*a" * 60 + "c"])
    assert not meet(["**/a/" * 60 + "*.py"], ["**/a/" * 60 + "*.js"])


def pattern(glob: str) -> re.Pattern[str]:
    """The same meaning, said by a regular expression over paths that end in a slash."""
    text = ""
    names = [name for name in glob.split("/") if name]
    below = glob.endswith("/") or not re.search(r"[*?[]", names[-1])
    for name in names:
        if name == "**":
            text += "(?:[^/]+/)*"
            continue
        for piece in re.findall(r"\[!?[^]]+\]|.", name):
            if piece == "*":
                text += "[^/]*"
            elif piece == "?":
                text += "[^/]"
            elif len(piece) > 1:
                text += f"(?!/){piece.replace('[!', '[^')}"
            else:
                text += re.escape(piece)
        text += "/"
    return re.compile(text + ("(?:[^/]+/)*" if below else ""))


def common(one: str, other: str, paths: list[str]) -> list[str]:
    """The paths that match both."""
    first, second = pattern(one), pattern(other)
    return [path for path in paths if first.fullmatch(path) and second.fullmatch(path)]


NAMES = ["".join(chars) for size in range(1, 5) for chars in itertools.product("abcd", repeat=size)]
DEEP = ["/".join(parts) + "/" for size in range(1, 7) for parts in itertools.product("ab", repeat=size)]
MIXED = ["/".join(parts) + "/" for size in range(1, 4) for parts in itertools.product(NAMES[:12], repeat=size)]

PIECE = st.sampled_from(["a", "b", "c", "*", "?", "[ab]", "[!a]", "[a-c]", "[!b-c]"])
NAME = st.lists(PIECE, min_size=1, max_size=2).map("".join)
LONGER_NAME = st.lists(PIECE, min_size=1, max_size=4).map("".join)
PATH = st.lists(st.sampled_from(["a", "b", "*", "**", "?"]), min_size=1, max_size=3)
DEEP_GLOB = st.builds(lambda names, end: "/".join(names) + end, PATH, st.sampled_from(["", "", "/"]))
MIXED_GLOB = st.lists(NAME | st.just("**"), min_size=1, max_size=3).map("/".join)


@settings(max_examples=300, deadline=None)
@given(one=NAME, other=NAME)
def test_two_names_meet_exactly_where_a_short_name_fits_both(one: str, other: str) -> None:
    """Two patterns of two places each have a common name of at most four characters, if they have any."""
    assert meet([one], [other]) == bool(common(one, other, [f"{name}/" for name in NAMES]))


@settings(max_examples=300, deadline=None)
@given(one=DEEP_GLOB, other=DEEP_GLOB)
def test_two_paths_meet_exactly_where_a_short_path_fits_both(one: str, other: str) -> None:
    """Two globs of three parts each have a common path of at most six parts, if they have any."""
    assert meet([one], [other]) == bool(common(one, other, DEEP))


@settings(max_examples=200, deadline=None)
@given(one=MIXED_GLOB, other=MIXED_GLOB)
def test_a_path_that_fits_both_is_never_overlooked(one: str, other: str) -> None:
    """Names and parts mixed; two tasks at once on one file is what must not happen."""
    assert meet([one], [other]) or not common(one, other, MIXED)


@settings(max_examples=200, deadline=None)
@given(one=LONGER_NAME, other=LONGER_NAME)
def test_meeting_is_mutual_and_every_scope_meets_itself(one: str, other: str) -> None:
    """And all meet everything."""
    assert meet([one], [other]) == meet([other], [one])
    assert meet([one], [one])
    assert meet([one], ["**"])
