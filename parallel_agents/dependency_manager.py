"""Which agents depend on which, and what follows from it: an order, groups that may run together, cycles, trees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from parallel_agents.eventstore.errors import InvalidPlan, InvalidUsage, nearest
from parallel_agents.scheduler import graph

_KEYS = {"dependsOn": "depends_on", "depends_on": "depends_on", "provides": "provides"}


@dataclass(slots=True)
class AgentDependency:
    """What one type of agent needs, and what it leaves behind."""

    agent_type: str
    depends_on: list[str] = field(default_factory=list)  # Types of agents that must be through before.
    provides: list[str] = field(default_factory=list)  # Words for a reader ("api", "database"); they order nothing.


class DependencyTree(TypedDict):
    """An agent and, below it, all that it depends on."""

    agent_type: str
    provides: list[str]
    dependencies: list[DependencyTree]


class DependencyManager:
    """Orders agents by what they depend on.

    An agent of which nothing was said depends on nothing. A question about some agents is about these alone: what they
    depend on outside of them is not waited for, so a part of a team can be ordered without the rest. It still counts as
    a link: where a needs b and b needs c, a comes after c also if b is not asked about.
    """

    def __init__(self, dependency_graph: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Begin with the graph of a configuration (``dependencies.dependencyGraph``).

        Args:
            dependency_graph: ``{agent: {"dependsOn": [agents], "provides": [words]}}``, both keys optional;
                ``depends_on`` is the same as ``dependsOn``.
        Raises:
            InvalidUsage: an unknown key, both spellings at once, or a value that is no list of strings.
        """
        self._agents: dict[str, AgentDependency] = {}
        for agent_type, entry in (dependency_graph or {}).items():
            said = _read_entry(agent_type, entry)
            self.add_dependency(agent_type, said.get("depends_on", []), said.get("provides"))

    def add_dependency(self, agent_type: str, depends_on: Sequence[str], provides: Sequence[str] | None = None) -> None:
        """Say what an agent depends on, in addition to what was said before. Saying it twice changes nothing.

        Cycles are not looked for here, as a graph may be complete only later: see ``detect_circular_dependencies``.

        Raises:
            InvalidUsage: depends_on or provides is no list of strings.
        """
        needed = _strings(depends_on, f"what {agent_type!r} depends on")
        words = _strings([] if provides is None else provides, f"what {agent_type!r} provides")
        agent = self._agents.setdefault(agent_type, AgentDependency(agent_type))
        agent.depends_on = list(dict.fromkeys([*agent.depends_on, *needed]))
        agent.provides = list(dict.fromkeys([*agent.provides, *words]))

    def get_dependencies(self, agent_type: str) -> list[str]:
        """The agents that this one depends on directly, in the order they were said; none for an unknown agent."""
        agent = self._agents.get(agent_type)
        return list(agent.depends_on) if agent else []

    def resolve_execution_order(self, agents: Iterable[str]) -> tuple[list[str], list[str]]:
        """Every agent after all those that it depends on; the order given is kept among agents ready together.

        An agent given twice is ordered once.

        Returns:
            The order and no errors; or, where the agents lead into a cycle, no order and an error that names its path.
        """
        asked = _asked(agents)
        try:
            graph.check_acyclic(self._reached_from(asked))
        except InvalidPlan as error:
            return [], [error.message]
        return graph.topological_order(self._among(asked)), []

    def detect_circular_dependencies(self, agents: Iterable[str]) -> list[str] | None:
        """A cycle among these agents and everything that they depend on.

        Returns:
            Its path along "depends on", the first agent repeated last; None where there is no cycle.
        """
        return graph.find_cycle(self._reached_from(_asked(agents)))

    def get_dependency_tree(self, agent_type: str, max_depth: int = 10) -> DependencyTree:
        """An agent with all that it depends on below it.

        What several agents depend on stands below each of them. An agent that depends on itself, by whatever way, is
        shown once more where the cycle closes, with nothing below it.

        Args:
            agent_type: the agent at the top; an unknown one has nothing below it.
            max_depth: how many steps below the top the tree goes; 0 is the top alone.
        Raises:
            InvalidUsage: max_depth is negative.
        """
        if max_depth < 0:
            raise InvalidUsage(f"max_depth is {max_depth}", hint="0 shows the agent alone")
        top = self._leaf(agent_type)
        open_nodes: list[tuple[DependencyTree, frozenset[str]]] = [(top, frozenset())]
        while open_nodes:
            node, above = open_nodes.pop()
            if len(above) == max_depth or node["agent_type"] in above:
                continue
            node["dependencies"] = [self._leaf(name) for name in self.get_dependencies(node["agent_type"])]
            path = above | {node["agent_type"]}
            open_nodes.extend((below, path) for below in node["dependencies"])
        return top

    def can_run_parallel(self, agents: Iterable[str]) -> bool:
        """Whether all these agents may run at once: none depends on another of them, nor on itself, by whatever way."""
        return not any(self._among(_asked(agents)).values())

    def get_parallel_groups(self, agents: Iterable[str]) -> list[list[str]]:
        """The agents in groups: those of a group may run together, once the groups before it are through.

        Returns:
            Every agent once, in the first group that it can be in; within a group the order given.
        Raises:
            InvalidPlan: the agents lead into a cycle; the message names its path.
        """
        asked = _asked(agents)
        graph.check_acyclic(self._reached_from(asked))
        return graph.levels(self._among(asked))

    def _leaf(self, agent_type: str) -> DependencyTree:
        """An agent with nothing below it yet."""
        agent = self._agents.get(agent_type)
        return {"agent_type": agent_type, "provides": list(agent.provides) if agent else [], "dependencies": []}

    def _reached_from(self, asked: Sequence[str]) -> dict[str, list[str]]:
        """The part of the graph that these agents lead to: they first, in their order."""
        reached = {name: self.get_dependencies(name) for name in asked}
        to_do = list(asked)
        for name in to_do:  # Grows while it is read: breadth first.
            for below in reached[name]:
                if below not in reached:
                    reached[below] = self.get_dependencies(below)
                    to_do.append(below)
        return reached

    def _among(self, asked: Sequence[str]) -> dict[str, list[str]]:
        """For each of these agents, which of them it depends on, directly or by way of agents not asked about."""
        inside = set(asked)
        found: dict[str, list[str]] = {}
        for name in asked:
            seen: dict[str, None] = dict.fromkeys(self.get_dependencies(name))
            to_do = list(seen)
            for below in to_do:  # Grows while it is read.
                if below not in inside:  # Beyond an agent that was asked about, that agent's own dependencies say it.
                    fresh = [further for further in self.get_dependencies(below) if further not in seen]
                    seen.update(dict.fromkeys(fresh))
                    to_do.extend(fresh)
            found[name] = [below for below in seen if below in inside]
        return found


def _asked(agents: Iterable[str]) -> list[str]:
    """The agents of a question, each once, in the order given."""
    if isinstance(agents, str):
        raise InvalidUsage(f"agents are the string {agents!r}", hint=f"write [{agents!r}]")
    return list(dict.fromkeys(agents))


def _read_entry(agent_type: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """An agent's entry of a dependency graph, its keys in snake case."""
    if not isinstance(entry, Mapping):
        raise InvalidUsage(
            f"the dependency graph holds {entry!r} for agent {agent_type!r}",
            hint='write {"dependsOn": [...], "provides": [...]}',
        )
    said: dict[str, Any] = {}
    for key, value in entry.items():
        name = _KEYS.get(key)
        if name is None:
            raise InvalidUsage(
                f"agent {agent_type!r} of the dependency graph has an unknown key {key!r}",
                hint=nearest(str(key), _KEYS),
            )
        if name in said:
            raise InvalidUsage(
                f"agent {agent_type!r} of the dependency graph has both dependsOn and depends_on",
                hint="write one of them",
            )
        said[name] = value
    return said


def _strings(value: object, what: str) -> list[str]:
    """A list of strings. A string alone would be taken letter by letter."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InvalidUsage(f"{what} is {value!r}", hint="write a list of strings")
    words = list(value)
    for word in words:
        if not isinstance(word, str):
            raise InvalidUsage(f"{what} holds {word!r}", hint="write a list of strings")
    return words
