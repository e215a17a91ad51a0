"""What an attempt of an agent is told: at first, after failures of its own and of others, resumed, and in a conflict."""

from __future__ import annotations

from agentpaper import AgentRun, agent, agents_plan

from parallel_agents.eventstore import events as ev
from parallel_agents.eventstore.submission import AgentRole, FileSettings, Gate, Task
from parallel_agents.scheduler.agents.clients import BUILT_IN
from parallel_agents.scheduler.agents.errands import errand, session_id
from parallel_agents.scheduler.runners.protocol import Errand
from parallel_agents.scheduler.work import Clash, Work

ROLES = {
    "backend-engineer": AgentRole(name="backend-engineer", prompt="You build.", tools=("Bash",)),
    "merge-engineer": AgentRole(name="merge-engineer", prompt="You merge."),
}
KEPT = Work("check00001", commit="w1", changed=2, paths=("a.py", "b.py"))
CLASHING = Work(
    "check00001", commit="w1", changed=1, onto="c5", clashes=(Clash("a.txt", "contents"),), other_task_id="b"
)


def made(*tasks: Task, files: FileSettings | None = None, **agents: object) -> AgentRun:
    """A run of ``a`` and others, with roles."""
    given = tasks or (agent("a", description="Build the API."),)
    return AgentRun(agents_plan(*given, files=files or FileSettings(), agents={"roles": ROLES, **agents}))


def told(run: AgentRun, name: str = "a", *, begins: bool = True) -> Errand:
    """What the attempt that a tick starts is told."""
    run.tick()
    task = run.state.tasks[name]
    assert task.attempt_id is not None
    return errand(run.state, task, task.attempt_id, BUILT_IN["claude"], "/runs/paper", begins=begins)


def test_the_first_attempt_is_told_its_role_and_its_task() -> None:
    """And nothing of any failure."""
    one = told(made(allowed_tools=("Read",)))
    assert (one.role_prompt, one.tools, one.model) == ("You build.", ("Bash",), "sonnet")
    assert "Build the API." in one.prompt
    assert "failed\n" not in one.prompt
    assert (one.resume_prompt, one.resumes_folder, one.session_id) == ("", None, session_id("a1"))


def test_what_is_taken_over_is_told_nothing() -> None:
    """It has been told already, and to build a prompt takes time."""
    assert told(made(), begins=False).prompt == ""


def test_after_its_own_failure_it_is_told_what_went_wrong() -> None:
    """The error, its last words, and what it had changed, which is not in its files."""
    run = made()
    run.tick()
    run.fails("a", "agent", work=KEPT, output="I am done, mostly")
    run.wait(10)
    said = told(run).prompt
    for part in (
        "## The attempt before failed",
        "agent trouble",
        "I am done, mostly",
        "`a.py`, `b.py`",
        "That is not in your files",
    ):
        assert part in said, part


def test_after_a_failure_from_outside_it_is_told_the_same_as_before() -> None:
    """Also where an agent's own failure came before that."""
    run = made()
    first = told(run).prompt
    run.fails("a", "infrastructure", work=KEPT)
    run.wait(10)
    assert told(run).prompt == first
    run.fails("a", "agent", work=KEPT, output="half")
    run.wait(60)
    second = told(run).prompt
    assert "half" in second
    run.add(ev.AttemptLost(task_id="a", attempt_id="a3", error="gone"))
    run.add(
        ev.TaskRetryScheduled(
            task_id="a", attempt_id="a3", failures=3, not_before="1970-01-01T00:00:00Z", wait_s=0, jitter_s=0
        )
    )
    assert told(run).prompt == second


def test_a_session_that_was_cut_off_is_told_to_go_on_and_why_it_was() -> None:
    """In the files that it left; the whole prompt is at hand, should the session not be there."""
    run = made()
    run.tick()
    run.fails("a", "infrastructure", work=KEPT, resumable=True)
    run.wait(10)
    one = told(run)
    assert one.resumes_folder == "/runs/paper/a/a1"
    assert "Your session was cut off (infrastructure trouble)" in one.resume_prompt
    assert "Build the API." in one.prompt
    assert run.state.tasks["a"].begin_commit == "w1"


def test_where_the_files_are_those_of_the_attempt_before_that_is_said() -> None:
    """In a shared directory always; in a checkout where a session is gone on with that may be lost."""
    run = made()
    run.tick()
    run.fails("a", "agent", work=KEPT)
    run.wait(10)
    run.tick()
    run.fails("a", "infrastructure", work=KEPT, resumable=True)
    run.wait(60)
    assert "That is in your files" in told(run).prompt


def test_whoever_resolves_a_conflict_is_told_of_both_sides_and_of_the_checks() -> None:
    """In its own role."""
    settings = FileSettings(conflicts="agent", gates=(Gate(command=("make", "test"), after="task"),))
    run = made(agent("a", description="Build the API."), agent("b", description="Paint it."), files=settings)
    run.tick()
    run.ends("a", work=CLASHING, output="I built it.")
    one = told(run)
    assert (one.role_prompt, one.model) == ("You merge.", "opus")
    for part in ("# Resolve a merge conflict", "`a.txt`", "Paint it.", "Build the API.", "I built it.", "`make test`"):
        assert part in one.prompt, part


def test_work_that_is_done_again_on_a_merged_result_is_told_what_it_met() -> None:
    """And not that the attempt before failed: it had not."""
    run = made(agent("a"), agent("b"), files=FileSettings(conflicts="rebase"))
    run.tick()
    run.ends("a", work=CLASHING)
    said = told(run).prompt
    assert "did not merge" in said
    assert "The attempt before failed" not in said


def test_an_attempt_is_told_what_its_dependencies_have_left() -> None:
    """Their words and the paths that they changed."""
    run = made(agent("b", description="Design it."), agent("a", "b"))
    run.tick()
    run.ends("b", work=KEPT, output="REST it is.")
    said = told(run).prompt
    for part in ("Design it.", "REST it is.", "`a.py`"):
        assert part in said


def test_a_limit_of_money_is_passed_on() -> None:
    """Where the client can keep to one."""
    run = AgentRun(agents_plan(agent("a"), budget=500_000))
    assert told(run).limit_usd_micros == 500_000


def test_no_client_of_ours_passes_over_its_permissions_unasked() -> None:
    """That is for a person to say, in the configuration."""
    for client in BUILT_IN.values():
        words = " ".join((*client.command, *client.resume_command))
        assert not any(word in words for word in ("yolo", "bypass", "dangerously", "full-access", "full-auto")), (
            client.name
        )
