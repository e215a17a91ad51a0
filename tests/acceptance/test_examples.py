"""The examples work: their steps, run in the order of their dependencies, leave the pieces that they promise."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import psutil
import pytest
import yaml

from parallel_agents.eventstore.submission import Task

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TASK_IDS = {
    "full_stack": ["arch", "ux", "backend", "frontend", "qa", "security", "deploy"],
    "microservices": ["auth", "user", "payment", "gateway"],
    "refactoring": ["auth_refactor", "db_refactor", "ui_refactor", "regression"],
}


def load_plan(example: str) -> dict[str, Any]:
    """The plan of an example, as it is written."""
    plan: dict[str, Any] = yaml.safe_load((EXAMPLES / example / "plan.yaml").read_text(encoding="utf-8"))
    return plan


def copy_of(example: str, folder: Path) -> Path:
    """The example in a folder of its own, as ``make demo`` copies it."""
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    return Path(shutil.copytree(EXAMPLES / example, folder / example, ignore=ignored))


def run_task(task: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """One task's command, in the Python that runs the tests.

    Its output goes into files: from a pipe one would read until the last server that a step forgot has ended.
    """
    program, *arguments = task["command"]
    assert program == "python3"
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        ended = subprocess.run([sys.executable, *arguments], cwd=folder, stdout=out, stderr=err, timeout=60)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(ended.args, ended.returncode, out.read(), err.read())


def run_all(example: str, folder: Path) -> dict[str, str]:
    """Every task in the order of its dependencies; task id -> the last line that it printed."""
    tasks = {task["task_id"]: task for task in load_plan(example)["tasks"]}
    graph = {task_id: task.get("dependencies", []) for task_id, task in tasks.items()}
    last_lines = {}
    for task_id in TopologicalSorter(graph).static_order():
        ended = run_task(tasks[task_id], folder)
        assert ended.returncode == 0, f"{task_id}: {ended.stdout}{ended.stderr}"
        for output in tasks[task_id].get("outputs", []):
            assert (folder / output).is_file(), f"{task_id} has not left {output}"
        last_lines[task_id] = ended.stdout.splitlines()[-1]
    return last_lines


def processes_in(folder: Path) -> Iterator[psutil.Process]:
    """Processes that were started by a step and still run."""
    folder = folder.resolve()
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder) or str(folder) in " ".join(process.cmdline()):
                yield process
        except (psutil.Error, OSError):
            continue


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The full stack example after all its tasks, and the last line of each."""
    folder = copy_of("full_stack", tmp_path_factory.mktemp("built"))
    return folder, run_all("full_stack", folder)


@pytest.mark.parametrize("example", TASK_IDS)
def test_a_plan_names_the_tasks_of_its_use_case_in_the_words_of_a_plan(example: str) -> None:
    """Ids are those that users know, and every task is one that the store accepts."""
    plan = load_plan(example)
    assert [task["task_id"] for task in plan["tasks"]] == TASK_IDS[example]
    for task in plan["tasks"]:
        Task.model_validate_json(json.dumps({**plan["defaults"], **task}))


def test_every_task_of_the_full_stack_says_last_what_it_did(built: tuple[Path, dict[str, str]]) -> None:
    """The live view shows the last line: it names the piece and has numbers in it."""
    _, last_lines = built
    assert len(last_lines) == 7
    for task_id, line in last_lines.items():
        assert any(character.isdigit() for character in line), f"{task_id}: {line}"


def test_page_and_service_are_checked_together(built: tuple[Path, dict[str, str]]) -> None:
    """The report counts real requests, and no operation of the contract was left out."""
    folder, _ = built
    report = read_json(folder / "reports/qa.json")
    api = read_json(folder / "docs/api.json")
    operations = {
        method["operationId"] for path in api["paths"].values() for key, method in path.items() if key != "parameters"
    }
    assert set(report["operations_answered"]) == operations
    assert (report["failed"], report["operations_unanswered"]) == (0, [])
    assert report["passed"] == len(report["checks"]) > 0
    assert report["requests"] > report["passed"]


def test_the_archive_holds_what_its_manifest_says(built: tuple[Path, dict[str, str]]) -> None:
    """Every file but the manifest is listed with the digest of its content, and carries no time."""
    folder, _ = built
    with tarfile.open(folder / "dist/checkout.tar.gz") as archive:
        contents = {member.name: archive.extractfile(member) for member in archive}
        assert {member.mtime for member in archive} == {0}
        digests = {name: hashlib.sha256(file.read()).hexdigest() for name, file in contents.items() if file}
        packed = archive.extractfile("checkout/MANIFEST.json")
        assert packed is not None
        manifest = json.loads(packed.read())
    assert digests.pop("checkout/MANIFEST.json")
    assert digests == {f"checkout/{name}": digest for name, digest in manifest.items()}
    assert {"service/__main__.py", "web/index.html", "start.sh"} <= manifest.keys()


def test_a_planted_flaw_is_found_and_nothing_is_deployed(built: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """Security names file and line of each flaw, and deploy refuses to go on."""
    folder = Path(shutil.copytree(built[0], tmp_path / "flawed"))
    shutil.rmtree(folder / "dist")
    logic, page = folder / "service/checkout.py", folder / "web/index.html"
    code = logic.read_text(encoding="utf-8")
    logic.write_text(code + '\n\ndef price(db, sku):\n    return db.execute(f"SELECT {eval(sku)}")\n', encoding="utf-8")
    page.write_text(page.read_text(encoding="utf-8") + '<img src="x" onerror="steal()">\n', encoding="utf-8")

    tasks = {task["task_id"]: task for task in load_plan("full_stack")["tasks"]}
    assert run_task(tasks["security"], folder).returncode == 1
    found = {(one["rule"], one["file"], one["line"]) for one in read_json(folder / "reports/security.json")["findings"]}
    line = len(code.splitlines()) + 4
    assert found == {
        ("formatted-sql", "service/checkout.py", line),
        ("dynamic-code", "service/checkout.py", line),
        ("inline-script", "web/index.html", len(page.read_text(encoding="utf-8").splitlines())),
    }
    refused = run_task(tasks["deploy"], folder)
    assert refused.returncode == 1
    assert "not deployed" in refused.stderr
    assert not (folder / "dist").exists()


def test_a_wrong_sum_is_found(built: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    """The checks of the money compare with a sum of their own: rounding down is noticed."""
    folder = Path(shutil.copytree(built[0], tmp_path / "wrong"))
    logic = folder / "service/checkout.py"
    logic.write_text(logic.read_text(encoding="utf-8").replace("percent + 50", "percent"), encoding="utf-8")
    qa = next(task for task in load_plan("full_stack")["tasks"] if task["task_id"] == "qa")
    assert run_task(qa, folder).returncode == 1
    failed = [check["name"] for check in read_json(folder / "reports/qa.json")["checks"] if check["outcome"] != "ok"]
    assert failed == ["random carts cost what they should"]


@pytest.mark.parametrize("task_id", TASK_IDS["full_stack"][1:])
def test_a_step_without_the_pieces_it_needs_says_which(task_id: str, tmp_path: Path) -> None:
    """Run before its dependencies, a step fails with one line and leaves nothing."""
    folder = copy_of("full_stack", tmp_path)
    task = next(task for task in load_plan("full_stack")["tasks"] if task["task_id"] == task_id)
    ended = run_task(task, folder)
    assert ended.returncode == 1
    assert "is missing" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not any((folder / output).exists() for output in task["outputs"])


def test_the_microservices_answer_through_their_gateway(tmp_path: Path) -> None:
    """Each service is a runnable file, and the walk through all of them was made."""
    folder = copy_of("microservices", tmp_path)
    run_all("microservices", folder)
    report = read_json(folder / "reports/end_to_end.json")
    routes = [read_json(folder / f"services/{name}.json") for name in ("auth", "user", "payment")]
    assert report["routes"] == sum(map(len, routes))
    assert report["calls"] > report["routes"]
    assert list(processes_in(folder)) == []


def test_the_refactoring_changes_the_code_and_not_what_it_does(tmp_path: Path) -> None:
    """All modules are rewritten, every test is green, and the injection no longer works."""
    folder = copy_of("refactoring", tmp_path)
    run_all("refactoring", folder)
    for module in ("auth", "db", "ui"):
        original = (EXAMPLES / "refactoring/legacy" / f"{module}.py").read_text(encoding="utf-8")
        assert (folder / "before/legacy" / f"{module}.py").read_text(encoding="utf-8") == original
        assert (folder / "legacy" / f"{module}.py").read_text(encoding="utf-8") != original
    report = read_json(folder / "reports/regression.json")
    assert (report["passed"], report["failing"], report["outcome_changed"]) == (True, [], [])
    assert report["customers_seen_by_injection"] == {"before": 1, "after": 0}


def test_a_refactoring_that_breaks_a_test_is_taken_back(tmp_path: Path) -> None:
    """With a rewriter that gets widths wrong, the step fails and the module is as it was."""
    folder = copy_of("refactoring", tmp_path)
    step = folder / "steps/auth_refactor.py"
    step.write_text(step.read_text(encoding="utf-8").replace('"<" if', '">" if'), encoding="utf-8")
    ended = run_task(load_plan("refactoring")["tasks"][0], folder)
    assert ended.returncode == 1
    assert "test_log_line_keeps_its_columns" in ended.stderr
    original = (EXAMPLES / "refactoring/legacy/auth.py").read_text(encoding="utf-8")
    assert (folder / "legacy/auth.py").read_text(encoding="utf-8") == original


def test_the_demo_works_in_a_repository_of_its_own(tmp_path: Path) -> None:
    """Also where a hook of the repository around it starts it, whose variables all lead there; that one stays as it is."""
    around = tmp_path / "checkout"
    shutil.copytree(EXAMPLES, around / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    (around / ".gitignore").write_text("demo-output\n__pycache__\n")
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}", "HOME": str(tmp_path), "LANG": "C.UTF-8",
    }  # fmt: skip

    def git(*words: str) -> str:
        who = ("-c", "user.name=A User", "-c", "user.email=user@localhost")
        return subprocess.run(
            ["git", *who, *words], cwd=around, env=environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "examples")
    looks = (
        ("for-each-ref",),
        ("worktree", "list"),
        ("rev-parse", "HEAD"),
        ("status", "--porcelain"),
        ("ls-files", "-s"),
    )
    before = [git(*words) for words in looks]
    hook = {"GIT_DIR": str(around / ".git"), "GIT_WORK_TREE": str(around), "GIT_INDEX_FILE": str(around / ".git/index")}
    ended = subprocess.run(
        ["sh", str(around / "examples/demo.sh")], cwd=around, env={**environment, **hook}, capture_output=True, text=True,
        timeout=100,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "7/7 completed" in ended.stdout
    assert "is merged into main" in ended.stdout
    assert [git(*words) for words in looks] == before
    assert (around / "demo-output/1/dist/checkout.tar.gz").exists()


def test_no_server_is_left_running(built: tuple[Path, dict[str, str]]) -> None:
    """After the last task, nothing that a step started is alive."""
    folder, _ = built
    assert list(processes_in(folder)) == []
