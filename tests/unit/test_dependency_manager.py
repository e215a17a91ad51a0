"""Which agents depend on which: order, groups, cycles, trees."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parallel_agents.dependency_manager import AgentDependency, DependencyManager, DependencyTree
from parallel_agents.eventstore.errors import InvalidPlan, InvalidUsage

UNHURRIED = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
NAMES = "abcdef"

Graph = dict[str, list[str]]


def manager_of(graph: Graph) -> DependencyManager:
    """A manager that was told of these dependencies."""
    return DependencyManager({name: {"dependsOn": needed} for name, needed in graph.items()})


@st.composite
def graphs(draw: st.DrawFn, acyclic: bool = False) -> Graph:
    """Graphs of up to six agents, some of which are named as dependencies only."""
    known = draw(st.permutations(NAMES[: draw(st.integers(0, len(NAMES)))]))
    drawn = {name: draw(st.lists(st.sampled_from(NAMES), max_size=4)) for name in known}
    return {name: [below for below in needed if below < name or not acyclic] for name, needed in drawn.items()}


some_agents = st.lists(st.sampled_from(NAMES), unique=True)


def needs(graph: Graph) -> dict[str, set[str]]:
    """Everything that each agent depends on, directly or not, by brute force."""
    found = {name: set(graph.get(name, ())) for name in NAMES}
    for middle, name in itertools.product(NAMES, NAMES):  # Warshall 1962.
        if middle in found[name]:
            found[name] |= found[middle]
    return found


@pytest.fixture
def manager() -> DependencyManager:
    """The manager that users know from the first example."""
    # Create dependency manager
    return DependencyManager(
        {
            "backend-engineer": {"dependsOn": ["software-architect"], "provides": ["api", "database"]},
            "frontend-engineer": {"dependsOn": ["ux-designer", "backend-engineer"], "provides": ["ui"]},
            "qa-engineer": {"dependsOn": ["backend-engineer", "frontend-engineer"], "provides": ["test_results"]},
        }
    )


AGENTS = ["backend-engineer", "frontend-engineer", "qa-engineer", "software-architect", "ux-designer"]


def test_the_snippet_of_the_documentation_yields_the_order_and_groups_it_shows() -> None:
    """The order and the groups that its comments promise."""
    # fmt: off
    # Create dependency manager
    manager = DependencyManager({
        "backend-engineer": {
            "dependsOn": ["software-architect"],
            "provides": ["api", "database"]
        },
        "frontend-engineer": {
            "dependsOn": ["ux-designer", "backend-engineer"],
            "provides": ["ui"]
        },
        "qa-engineer": {
            "dependsOn": ["backend-engineer", "frontend-engineer"],
            "provides": ["test_results"]
        }
    })

    # Resolve execution order
    agents = ["backend-engineer", "frontend-engineer", "qa-engineer", "software-architect", "ux-designer"]
    ordered, errors = manager.resolve_execution_order(agents)
    assert ordered == ["software-architect", "ux-designer", "backend-engineer", "frontend-engineer", "qa-engineer"]
    assert errors == []

    # Get parallel groups
    groups = manager.get_parallel_groups(agents)
    assert groups == [
        ["software-architect", "ux-designer"],    # Group 1: Can run together
        ["backend-engineer"],                      # Group 2: Waits for Group 1
        ["frontend-engineer"],                     # Group 3: Waits for Group 2
        ["qa-engineer"]                            # Group 4: Waits for Group 3
    ]
    # fmt: on


def test_the_snippet_on_cycles_finds_none_until_there_is_one(manager: DependencyManager) -> None:
    """As users ask for it."""
    assert manager.detect_circular_dependencies(AGENTS) is None
    manager.add_dependency("software-architect", ["qa-engineer"])
    cycle = manager.detect_circular_dependencies(AGENTS)
    assert cycle == ["backend-engineer", "software-architect", "qa-engineer", "backend-engineer"]


def test_a_cycle_leaves_no_order_and_an_error_with_its_path() -> None:
    """The groups, which have no place for errors, are refused with the same words."""
    manager = manager_of({"a": ["b"], "b": ["a"], "c": []})
    path = "circular dependency: a -> b -> a"
    assert manager.resolve_execution_order(["c", "a", "b"]) == ([], [path])
    assert manager.resolve_execution_order(["c"]) == (["c"], [])
    with pytest.raises(InvalidPlan, match=path):
        manager.get_parallel_groups(["c", "a", "b"])


def test_a_cycle_through_agents_not_asked_about_is_found() -> None:
    """What an agent leads to counts: it could not be begun anywhere."""
    manager = manager_of({"a": ["b"], "b": ["a"]})
    assert manager.detect_circular_dependencies(["a"]) == ["a", "b", "a"]
    assert manager.resolve_execution_order(["a"]) == ([], ["circular dependency: a -> b -> a"])
    with pytest.raises(InvalidPlan, match="circular dependency: a -> b -> a"):
        manager.get_parallel_groups(["a"])
    assert not manager.can_run_parallel(["a"])


def test_a_part_of_a_team_is_ordered_without_the_rest(manager: DependencyManager) -> None:
    """A dependency outside of the agents given is no error and is not waited for."""
    assert manager.resolve_execution_order(["qa-engineer", "backend-engineer"]) == (
        ["backend-engineer", "qa-engineer"],
        [],
    )
    assert manager.get_parallel_groups(["ux-designer", "backend-engineer"]) == [["ux-designer", "backend-engineer"]]


def test_an_agent_not_asked_about_still_links_the_two_beside_it(manager: DependencyManager) -> None:
    """The frontend needs the architect by way of the backend, also where the backend is not among them."""
    pair = ["frontend-engineer", "software-architect"]
    assert manager.resolve_execution_order(pair) == (["software-architect", "frontend-engineer"], [])
    assert manager.get_parallel_groups(pair) == [["software-architect"], ["frontend-engineer"]]
    assert not manager.can_run_parallel(pair)


def test_agents_run_in_parallel_where_none_needs_another(manager: DependencyManager) -> None:
    """Directly or not; unknown agents need nobody."""
    assert manager.can_run_parallel(["software-architect", "ux-designer", "explore"])
    assert manager.can_run_parallel(["ux-designer", "backend-engineer"])
    assert not manager.can_run_parallel(["backend-engineer", "qa-engineer"])
    assert not manager.can_run_parallel(["software-architect", "qa-engineer"])
    assert manager.can_run_parallel(["qa-engineer"])
    assert manager.can_run_parallel([])


def test_a_manager_that_was_told_nothing_keeps_the_order_given() -> None:
    """An agent given twice is ordered once."""
    manager = DependencyManager()
    assert manager.resolve_execution_order(["b", "a", "b"]) == (["b", "a"], [])
    assert manager.get_parallel_groups(["b", "a", "b"]) == [["b", "a"]]
    assert (manager.resolve_execution_order([]), manager.get_parallel_groups([])) == (([], []), [])


def test_what_is_said_of_an_agent_adds_to_what_was_said_before() -> None:
    """Each dependency once, in the order said; what is handed out is a copy."""
    manager = DependencyManager({"qa": {"depends_on": ["backend"], "provides": ["report"]}})
    manager.add_dependency("qa", ["frontend", "backend"], provides=["coverage"])
    assert manager.get_dependencies("qa") == ["backend", "frontend"]
    assert manager.get_dependency_tree("qa")["provides"] == ["report", "coverage"]
    manager.get_dependencies("qa").clear()
    assert manager.get_dependencies("qa") == ["backend", "frontend"]
    assert manager.get_dependencies("never heard of") == []


def test_a_given_graph_is_not_changed() -> None:
    """It may be the configuration of somebody else."""
    given_graph = {"qa": {"dependsOn": ["backend"], "provides": []}}
    DependencyManager(given_graph).add_dependency("qa", ["frontend"], ["report"])
    assert given_graph == {"qa": {"dependsOn": ["backend"], "provides": []}}


def test_an_agents_dependency_has_lists_of_its_own() -> None:
    """By position or by name, the last two may be left out."""
    one, other = AgentDependency("qa"), AgentDependency("qa", ["backend"], provides=["report"])
    one.depends_on.append("x")
    assert (other.agent_type, other.depends_on, other.provides) == ("qa", ["backend"], ["report"])
    assert AgentDependency("qa") == AgentDependency(agent_type="qa", depends_on=[], provides=[])


@pytest.mark.parametrize(
    ("entry", "message", "hint"),
    [
        ({"dependOn": ["a"]}, "agent 'qa' of the dependency graph has an unknown key 'dependOn'", "'dependsOn'"),
        ({"dependsOn": "backend"}, "what 'qa' depends on is 'backend'", "list of strings"),
        ({"dependsOn": [7]}, "what 'qa' depends on holds 7", "list of strings"),
        ({"dependsOn": None}, "what 'qa' depends on is None", "list of strings"),
        ({"provides": "ui"}, "what 'qa' provides is 'ui'", "list of strings"),
        ({"dependsOn": [], "depends_on": []}, "both dependsOn and depends_on", "one of them"),
        (["backend"], r"the dependency graph holds \['backend'\] for agent 'qa'", "dependsOn"),
    ],
)
def test_a_graph_that_cannot_be_read_is_refused_with_a_hint(entry: Any, message: str, hint: str) -> None:
    """The message names the agent and the key or value."""
    with pytest.raises(InvalidUsage, match=message) as refused:
        DependencyManager({"qa": entry})
    assert hint in refused.value.hint


def test_one_string_is_not_taken_for_a_list_of_agents(manager: DependencyManager) -> None:
    """It would be read letter by letter."""
    with pytest.raises(InvalidUsage, match="what 'a' depends on is 'b'"):
        manager.add_dependency("a", "b")
    for ask in (
        manager.resolve_execution_order,
        manager.detect_circular_dependencies,
        manager.can_run_parallel,
        manager.get_parallel_groups,
    ):
        with pytest.raises(InvalidUsage, match="agents are the string 'qa-engineer'"):
            ask("qa-engineer")


def test_a_tree_shows_an_agent_above_all_that_it_depends_on(manager: DependencyManager) -> None:
    """What two agents depend on stands below both."""
    architect: DependencyTree = {"agent_type": "software-architect", "provides": [], "dependencies": []}
    designer: DependencyTree = {"agent_type": "ux-designer", "provides": [], "dependencies": []}
    backend: DependencyTree = {
        "agent_type": "backend-engineer",
        "provides": ["api", "database"],
        "dependencies": [architect],
    }
    frontend: DependencyTree = {
        "agent_type": "frontend-engineer",
        "provides": ["ui"],
        "dependencies": [designer, backend],
    }
    qa: DependencyTree = {
        "agent_type": "qa-engineer",
        "provides": ["test_results"],
        "dependencies": [backend, frontend],
    }
    assert manager.get_dependency_tree("qa-engineer") == qa
    alone: DependencyTree = {"agent_type": "explore", "provides": [], "dependencies": []}
    assert manager.get_dependency_tree("explore") == alone


def expected_tree(graph: Graph, name: str, depth: int, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The tree by its definition."""
    cut = depth == 0 or name in above
    below = [] if cut else [expected_tree(graph, n, depth - 1, (*above, name)) for n in graph.get(name, ())]
    return {"agent_type": name, "provides": [], "dependencies": below}


@UNHURRIED
@given(graphs(), st.sampled_from(NAMES), st.integers(0, 4))
def test_a_tree_ends_at_its_depth_and_where_a_cycle_closes(graph: Graph, name: str, max_depth: int) -> None:
    """Whatever the graph, it is finite and never deeper than asked."""
    once = {above: list(dict.fromkeys(needed)) for above, needed in graph.items()}
    tree = manager_of(graph).get_dependency_tree(name, max_depth)
    assert tree == expected_tree(once, name, max_depth)


def test_a_tree_goes_ten_steps_down_unless_told_otherwise() -> None:
    """The top and ten below it; a negative depth is refused."""
    manager = manager_of({f"a{number}": [f"a{number + 1}"] for number in range(20)})
    node, steps = manager.get_dependency_tree("a0"), 0
    while node["dependencies"]:
        node, steps = node["dependencies"][0], steps + 1
    assert (node["agent_type"], steps) == ("a10", 10)
    with pytest.raises(InvalidUsage, match="max_depth is -1"):
        manager.get_dependency_tree("a0", -1)


@UNHURRIED
@given(graphs(), some_agents)
def test_a_cycle_is_reported_exactly_where_the_agents_lead_into_one(graph: Graph, agents: list[str]) -> None:
    """By order and by detection alike, as a path of real dependencies."""
    manager, needed = manager_of(graph), needs(graph)
    reached = set(agents).union(*(needed[name] for name in agents))
    cycle = manager.detect_circular_dependencies(agents)
    ordered, errors = manager.resolve_execution_order(agents)
    if not any(name in needed[name] for name in reached):
        assert (cycle, errors) == (None, [])
        assert sorted(ordered) == sorted(agents)
        return
    assert cycle is not None
    assert cycle[0] == cycle[-1]
    assert all(below in graph[above] for above, below in itertools.pairwise(cycle))
    assert (ordered, errors) == ([], [f"circular dependency: {' -> '.join(cycle)}"])


@UNHURRIED
@given(graphs(), some_agents)
def test_agents_may_run_in_parallel_exactly_where_no_way_leads_from_one_to_one(graph: Graph, agents: list[str]) -> None:
    """Compared with all that each agent needs, directly or not."""
    needed = needs(graph)
    independent = not any(other in needed[name] for name in agents for other in agents)
    assert manager_of(graph).can_run_parallel(agents) is independent


@UNHURRIED
@given(graphs(acyclic=True), some_agents)
def test_every_agent_is_in_the_first_group_that_it_can_be_in(graph: Graph, agents: list[str]) -> None:
    """Right after the last that it needs, by whatever way; the groups in a row are the order."""
    manager, needed = manager_of(graph), needs(graph)
    groups = manager.get_parallel_groups(agents)
    group_of = {name: number for number, group in enumerate(groups) for name in group}
    for name in agents:
        assert group_of[name] == 1 + max((group_of[n] for n in agents if n in needed[name]), default=-1)
    assert all(group == sorted(group, key=agents.index) for group in groups)
    assert all(manager.can_run_parallel(group) for group in groups)
    assert manager.resolve_execution_order(agents) == (list(itertools.chain.from_iterable(groups)), [])
