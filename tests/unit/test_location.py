"""Where a store is looked for, and what is made when it is not there."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from parallel_agents.eventstore.errors import InvalidUsage, StoreError
from parallel_agents.eventstore.location import attempts_folder, find_project_root, make_home, store_path


def test_the_root_is_the_nearest_folder_upwards_with_a_store(tmp_path: Path) -> None:
    """A store beats a git root that is nearer; an empty folder of that name is no store."""
    inner = tmp_path / "project" / "package" / "deep"
    inner.mkdir(parents=True)
    (tmp_path / "project" / ".parallel-agents").mkdir()
    (tmp_path / "project" / ".parallel-agents" / "events.db").touch()
    (tmp_path / "project" / "package" / ".git").mkdir()
    (inner / ".parallel-agents").mkdir()
    assert find_project_root(inner) == tmp_path / "project"


@pytest.mark.parametrize("as_file", [False, True])
def test_without_a_store_the_root_is_that_of_git(tmp_path: Path, as_file: bool) -> None:
    """A worktree's .git is a file."""
    inner = tmp_path / "project" / "src"
    inner.mkdir(parents=True)
    (tmp_path / "project" / ".git").touch() if as_file else (tmp_path / "project" / ".git").mkdir()
    assert find_project_root(inner) == tmp_path / "project"


def test_without_either_the_root_is_where_one_stands(tmp_path: Path) -> None:
    """As long as nothing above holds a repository."""
    if any((folder / ".git").exists() for folder in tmp_path.parents):
        pytest.skip("the temporary folder lies inside a repository")
    assert find_project_root(tmp_path) == tmp_path.resolve()


def test_the_store_lies_in_a_folder_of_its_own_at_the_root() -> None:
    """Unless another one is named."""
    assert store_path(Path("/p")) == Path("/p/.parallel-agents/events.db")
    assert store_path(Path("/p"), "") == Path("/p/.parallel-agents/events.db")


@pytest.mark.parametrize(
    ("named", "path"),
    [
        ("other.db", "other.db"),
        ("/srv/other.db", "/srv/other.db"),
        ("sqlite:////srv/other.db", "/srv/other.db"),
        ("sqlite:///other.db", "other.db"),
        ("~/other.db", "/home/ana/other.db"),
    ],
)
def test_a_store_is_named_by_path_or_url(monkeypatch: pytest.MonkeyPatch, named: str, path: str) -> None:
    """Three slashes and a relative path, four and an absolute one, as SQLAlchemy's users write it."""
    monkeypatch.setenv("HOME", "/home/ana")
    assert store_path(Path("/p"), named) == Path(path)


def test_a_named_folder_means_the_store_in_it(tmp_path: Path) -> None:
    """The file's name need not be known."""
    assert store_path(Path("/p"), str(tmp_path)) == tmp_path / "events.db"


@pytest.mark.parametrize(
    "named", ["postgresql://host/db", "sqlite://", "sqlite:///", "mysql:///x", "https://x/y", "~nobody-of-that-name/x"]
)
def test_what_cannot_be_opened_is_refused_by_name(named: str) -> None:
    """Before anything is made."""
    with pytest.raises(InvalidUsage, match=named):
        store_path(Path("/p"), named)


def test_the_home_of_a_store_is_private_and_invisible_to_git(tmp_path: Path) -> None:
    """Making it twice changes nothing, not even a rule that somebody wrote."""
    store = tmp_path / "deep" / ".parallel-agents" / "events.db"
    make_home(store)
    assert stat.S_IMODE(store.parent.stat().st_mode) == 0o700
    assert (store.parent / ".gitignore").read_text() == "*\n"
    (store.parent / ".gitignore").write_text("mine\n")
    make_home(store)
    assert (store.parent / ".gitignore").read_text() == "mine\n"


def test_no_rules_for_git_are_put_into_a_folder_that_is_not_ours(tmp_path: Path) -> None:
    """A store that was named to lie among other files hides none of them."""
    make_home(tmp_path / "events.db")
    make_home(tmp_path / "new" / "events.db")
    assert [path.name for path in tmp_path.rglob("*")] == ["new"]


def test_many_may_make_the_same_home_at_once(tmp_path: Path) -> None:
    """Eight first submitters of a project: none fails."""
    for attempt in range(30):
        store = tmp_path / str(attempt) / ".parallel-agents" / "events.db"
        start = Barrier(8)

        def make(store: Path = store, start: Barrier = start) -> None:
            start.wait(10)
            make_home(store)

        with ThreadPoolExecutor(8) as pool:
            for future in [pool.submit(make) for _ in range(8)]:
                future.result(10)
        assert (store.parent / ".gitignore").read_text() == "*\n"


def test_a_home_that_cannot_be_made_is_the_stores_error(tmp_path: Path) -> None:
    """It names the folder and offers another place."""
    (tmp_path / "file").touch()
    (tmp_path / ".parallel-agents").touch()
    for store in (tmp_path / "file" / ".parallel-agents" / "events.db", tmp_path / ".parallel-agents" / "events.db"):
        with pytest.raises(StoreError, match=str(store.parent)) as caught:
            make_home(store)
        assert "--store" in caught.value.hint


def test_the_files_of_attempts_lie_beside_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an absolute path, because attempts run in other folders."""
    monkeypatch.chdir(tmp_path)
    assert attempts_folder(Path("x/events.db")) == tmp_path / "x" / "runs"
