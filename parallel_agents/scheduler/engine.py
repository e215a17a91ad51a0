"""A dispatcher with all that it needs in one process: runners, loop, sampler. What ``run``, the daemon and the API start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from parallel_agents.eventstore.log import Log
from parallel_agents.eventstore.redaction import Redactor
from parallel_agents.scheduler.dispatcher import Dispatcher, Progress
from parallel_agents.scheduler.machine_load import UNKNOWN, MachineLoad, Usage
from parallel_agents.scheduler.resources import Sampler
from parallel_agents.scheduler.runners import plugged_in
from parallel_agents.scheduler.runners.callables import CallableRunner
from parallel_agents.scheduler.runners.protocol import Launch, Runner
from parallel_agents.scheduler.runners.shell import ShellRunner

if TYPE_CHECKING:
    from parallel_agents.scheduler.runners.agent import AgentRunner
    from parallel_agents.scheduler.watching import Watch


class Engine:
    """Dispatches runs in this process until it is closed.

    Args:
        kind: what this process is, as leases and events name it: ``run``, ``daemon`` or ``python``.
        takes_all: whether it claims every run that nobody holds.
        takes_left: asked about once a second, where there is one: whether it claims what others have left in the middle.
        pool: keyword arguments of ``CallableRunner``.
        rests: whether it does nothing at all while it holds no run (see ``Loop``).
        shell: whether there will be shell attempts; otherwise the supervisor is started when the first one is.
    """

    def __init__(
        self,
        log: Log,
        *,
        kind: str,
        takes_all: bool = False,
        takes_left: Callable[[], bool] | None = None,
        pool: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        rests: bool = False,
        shell: bool = False,
    ) -> None:
        self.log = log
        self._callables = CallableRunner(self._wake, **(pool or {}))
        self._runners: dict[str, Runner] = {"python": self._callables}
        self._shell: ShellRunner | None = None
        self._agents: AgentRunner | None = None
        self._environ = environ
        self._sampler: Sampler | None = None
        self._watch: Watch | None = None
        if takes_all or shell:
            self.need_shell()
        from parallel_agents.scheduler.loop import Loop  # It takes as long to come as the supervisor to start.

        runners = _Runners(self._runners, self._make)
        self.dispatcher = Dispatcher(
            log,
            runners,
            kind=kind,
            takes_all=takes_all,
            takes_left=takes_left,
            environ=environ,
            used=self._used,
            wake=self._wake,
            live_spend=self._live_spend,
            load=self._load,
        )
        self.loop = Loop(self.dispatcher, retry_store_errors=takes_all, rests=rests, on_bell=self._heard)

    def need_shell(self) -> None:
        """Start the supervisor of shell attempts now, if it does not run yet; it takes a moment."""
        if self._shell is not None:
            return
        bell = self.log.doorbell
        folder = str(bell.folder) if bell.folder else None
        self._shell = ShellRunner(self._wake, doorbell_dir=folder, doorbell_prefix=bell.prefix)
        self._runners["shell"] = self._shell
        self._sample()

    def _make(self, name: str) -> Runner:
        """A runner that is asked for the first time.

        Raises:
            KeyError: there is none of that name.
        """
        if name == "shell":
            self.need_shell()
            return self._runners[name]
        if plugged_in.is_plugged_in(name):
            self._runners[name] = plugged_in.make(name, self._wake)
            return self._runners[name]
        if self._agents is None:
            from parallel_agents.scheduler.runners.agent import AgentRunner  # Other runs need no prices.

            bell = self.log.doorbell
            folder = str(bell.folder) if bell.folder else None
            redact = Redactor(self._environ).text
            self._agents = AgentRunner(self._wake, redact=redact, doorbell_dir=folder, doorbell_prefix=bell.prefix)
            self._runners[self._agents.name] = self._agents
            self._sample()
        return self._agents

    def _sample(self) -> None:
        """Measure what attempts use, and what the machine has left, once there are any."""
        if self._sampler is None:
            from parallel_agents.scheduler.watching import Watch  # Runs of callables need none.

            self._watch = Watch(self.log.path, self._launches, self._end, self.log.check_in_place)
            self._sampler = Sampler(self._pids, look=self._watch.look, earlier=self._watch.earlier)
            self._sampler.start()

    def _pids(self) -> dict[str, int]:
        return {name: pid for runner in self._supervised() for name, pid in runner.live().items()}

    def _supervised(self) -> list[ShellRunner | AgentRunner]:
        return [runner for runner in (self._shell, self._agents) if runner is not None]

    def _launches(self) -> dict[str, Launch]:
        return {name: launch for runner in self._supervised() for name, launch in runner.launches().items()}

    def _end(self, attempt_id: str, *, error: str, kind: str, grace_s: float) -> None:
        """End an attempt that has broken a limit; who does not know it does nothing."""
        for runner in self._supervised():
            runner.end(attempt_id, error=error, kind=kind, grace_s=grace_s)

    def _load(self) -> MachineLoad:
        return UNKNOWN if self._sampler is None else self._sampler.load()

    def _live_spend(self) -> Mapping[str, int]:
        return {} if self._agents is None else self._agents.spending()

    def start(self) -> None:
        """Begin dispatching."""
        self.loop.start()

    def hold(self, run_id: str) -> None:
        """Dispatch a run from now on."""
        self.dispatcher.hold(run_id)
        self.loop.wake()

    def wait(
        self, run_id: str, *, until: Callable[[Progress], bool], timeout_s: float | None = None
    ) -> Progress | None:
        """Block until a run's progress satisfies a condition.

        Returns:
            The progress, or None when the time was up first.
        Raises:
            Whatever stopped the loop.
        """
        progress = self.dispatcher.progress

        def done() -> bool:
            return run_id in progress and until(progress[run_id])

        return progress[run_id] if self.loop.wait(done, timeout_s) else None

    def calls_here(self) -> bool:
        """Whether the current thread executes a call of a run of ours, which therefore cannot end meanwhile."""
        return self._callables.calls_here()

    def give_up_callables(self, run_id: str) -> list[str]:
        """Let the calls of a run that were told to stop, and have not returned, count as stopped.

        Returns:
            Their tasks. Such a call goes on in its thread until it returns; nobody waits for it any more.
        """
        return self._callables.give_up(run_id)

    def close(self) -> None:
        """Stop dispatching, and let others have the runs. Shell attempts that run go on, and can be adopted."""
        self.loop.stop()
        try:
            if self.loop.failure is None:
                self.dispatcher.leave()
        finally:
            self.dispatcher.close()
            if self._sampler is not None and self._watch is not None:
                self._sampler.close()
                self._watch.close()
            for runner in self._runners.values():
                runner.close()

    def _heard(self) -> None:
        """The supervisor of an adopted attempt rings when that has ended."""
        for runner in self._supervised():
            runner.hint()

    def _wake(self) -> None:
        self.loop.wake()

    def _used(self, attempt_id: str) -> Usage | None:
        return self._sampler.used(attempt_id) if self._sampler is not None else None


class _Runners(dict[str, Runner]):
    """The runners by name; most are made when they are first asked for."""

    def __init__(self, made: dict[str, Runner], make: Callable[[str], Runner]) -> None:
        super().__init__()
        self._made = made
        self._make = make

    def __getitem__(self, name: str) -> Runner:
        found = self._made.get(name)
        return self._make(name) if found is None else found

    def values(self) -> Any:
        """Those that exist."""
        return list(self._made.values())
