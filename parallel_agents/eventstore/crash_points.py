"""Named moments at which a process can be told to die as `kill -9` would end it, to see that nothing is lost there.

``PARALLEL_AGENTS_CRASH_AT=ends.committed parallel-agents run PLAN`` ends the process of the command when it comes to that
moment for the first time, ``ends.committed:3`` when it comes there for the third. The variable is looked at once, when a
process begins; attempts never get it. The table is in docs/crashes.md for readers, too.

It lies in the lowest room, because every other one reaches points, and imports nothing, because the supervisor of attempts
and every command start with it.
"""

from __future__ import annotations

import os
import signal
import sys

VARIABLE = "PARALLEL_AGENTS_CRASH_AT"

POINTS = {
    # The log and its snapshots.
    "log.before-append": "A transaction is to begin.",
    "log.in-transaction": "The events are written, and the transaction is open.",
    "log.committed": "The events are committed, and nobody has been told.",
    "snapshot.in-transaction": "A snapshot of a state is written, and the transaction is open.",
    "snapshot.committed": "A snapshot of a state is committed.",
    # One tick of a dispatcher: inside the transaction, and after it.
    "claim.drafted": "The dispatcher has taken a lease, in an open transaction.",
    "claim.committed": "The lease is in the log, and no attempt of its run is adopted.",
    "ends.drafted": "Ends of attempts are decided, in an open transaction.",
    "ends.committed": "Ends of attempts are in the log, and nothing has come of it.",
    "costs.drafted": "What an attempt has cost is drafted, and its end is not.",
    "starts.drafted": "Starts of attempts are decided, in an open transaction.",
    "starts.committed": "Starts of attempts are in the log, and none has begun.",
    "finish.drafted": "The end of a run is decided, in an open transaction.",
    "finish.committed": "The end of a run is in the log, and its checkouts are still there.",
    "release.drafted": "The dispatcher leaves and gives a lease back, in an open transaction.",
    "release.committed": "The leases are given back, and the dispatcher has not left.",
    # Attempts, as their dispatcher sees them.
    "attempt.before-start": "An attempt is to be given to its runner.",
    "attempt.given": "The supervisor has been told to start an attempt.",
    "attempt.before-adopt": "Attempts of another dispatcher are to be taken over.",
    "attempt.adopted": "Attempts of another dispatcher are looked after.",
    "attempt.before-stop": "An attempt is to be stopped, and nobody has been told.",
    "attempt.stop-asked": "The supervisor has been told to stop an attempt.",
    "attempt.stop-left": "The wish to stop an adopted attempt lies in its folder, and its supervisor has not been woken.",
    "lost.revoked": "An attempt that vanished is revoked, and what is left of it has not been ended.",
    "lost.ended": "What was left of an attempt that vanished is ended, and nobody has been told.",
    "agent.told": "Prompt and role of an agent are written, and its session is not.",
    "agent.folder-made": "An agent has a folder for temporary files, and has not been started.",
    "agent.ready": "All that an agent needs is written, and it has not been started.",
    "agent.before-judging": "The client of an agent has ended, and what it has printed has not been judged.",
    "agent.judged": "What an agent has cost and done is known, and not in the log.",
    # Attempts, as their supervisor sees them.
    "supervisor.before-lock": "The supervisor has the order to start an attempt.",
    "supervisor.locked": "The supervisor holds the lock of an attempt, and has not claimed it.",
    "supervisor.claimed": "The attempt is claimed for ever, and its command has not been started.",
    "supervisor.spawned": "The command runs, and nothing says who it is but its environment.",
    "supervisor.recorded": "The command runs, and its process is on record.",
    "supervisor.term-sent": "The processes of an attempt have been asked to end.",
    "supervisor.kill-sent": "The processes of an attempt have been killed.",
    "supervisor.reaped": "The command has ended, and what it left behind has not been looked for.",
    "supervisor.before-exit-file": "An attempt has ended with all its processes, and nothing says so.",
    "supervisor.exit-file": "The exit file is there, and the lock is held.",
    "supervisor.unlocked": "The lock is given back, and the dispatcher has not been told.",
    "file.before-rename": "A file of an attempt is written beside its name.",
    # Checkouts.
    "checkout.before": "The checkout of an attempt is to be made.",
    "checkout.ready": "The checkout of an attempt is there, and nobody has been told.",
    "worktree.before-add": "A new worktree is to be made.",
    "worktree.registered": "Git knows a new worktree, and it holds no file.",
    "worktree.filled": "A new worktree holds its files.",
    "worktree.moved": "A used worktree has been moved, and git looks for it where it was.",
    "worktree.before-set": "A used worktree is to be set to another commit.",
    "worktree.set": "A used worktree is set to another commit.",
    "worktree.put-aside": "A worktree that is removed has another name, and git still knows it.",
    "worktree.forgotten": "Git has forgotten a worktree, and its files are there.",
    # Files: snapshots, merges, refs.
    "keep.before": "An attempt has ended, and what it left is not kept.",
    "keep.held": "A ref holds what an attempt left, and nobody has been told.",
    "gate.given": "The supervisor has been told to run a quality gate.",
    "files.tree": "The files of a working tree are a tree in git, and no commit.",
    "files.commit": "The files of a working tree are a commit, and no ref holds it.",
    "failure.held": "A ref holds what a failed run left in a shared directory, and no event names it.",
    "failure.kept": "What a failed run left in a shared directory is a checkpoint, and lies there as it was.",
    "failure.replaced": "A shared directory is what it was before a run that failed, and the log does not say so.",
    "merge.before": "Kept work is to be merged.",
    "merge.made": "The commit of a merge is made, and no ref holds it.",
    "merge.held": "A ref holds the commit of a merge, and nobody has been told.",
    "refs.before-hold": "Refs are to be made.",
    "refs.held": "Refs are made.",
    "refs.before-drop": "Refs of ours are to be deleted.",
    "refs.dropped": "Refs of ours are deleted.",
    "branch.before-move": "The branch of a run is to be moved.",
    "branch.moved": "The branch of a run is moved.",
    # Commands of people.
    "submit.before-append": "The files that a run starts from are held, and no event knows the run.",
    "submit.appended": "The run is in the log, and whoever submitted it has not been told its id.",
    "schedule.prepared": "A scheduled plan is due, its files are held, and no event knows the run.",
    "schedule.fired": "The run of a scheduled plan is in the log, and nobody has been told.",
    "steer.decided": "A command to a run is decided, and not in the log.",
    "steer.appended": "A command to a run is in the log, and nobody has been told.",
    "rollback.drafted": "A rollback is decided, in an open transaction.",
    "rollback.appended": "A rollback is in the log; files, branch and attempts are as before.",
    "rollback.replaced": "The files of a shared directory are taken back, and the log says that it is being done.",
    "restore.kept": "What a directory holds is a checkpoint, and nothing has been replaced.",
    "restore.replaced": "The files of a checkpoint are in the directory, and the log does not say so.",
    "checkpoint.held": "A ref holds a checkpoint that somebody wants, and no event names it.",
    "fork.held": "Refs hold what a fork starts from, and no event knows the fork.",
    "fork.appended": "The fork is in the log, and has no branch.",
    "export.written": "An export is written to its end, under another name.",
    "import.checked": "An import is unpacked and proved, and no ref of its run is made.",
    "import.held": "Refs hold the commits of an imported run, and its store is not in place.",
    "import.placed": "An imported run is in place, and nobody has been told.",
    "import.unheld": "The refs of an imported run that is taken away are gone, and its store is in place.",
    "import.taken-away": "An imported run is not in place any more, and its files lie beside it.",
    "answer.appended": "The answer to blocked work is in the log, and the branch has not moved.",
    "resolve.held": "A ref holds the merge that a resolution led to, and the log does not name it.",
    "home.made": "The commit that brings a run's result home is made, and the user's branch has not moved.",
    "home.moved": "The user's branch is moved, and the log does not say so.",
    "home.recorded": "The log says that a result was brought home, and the user has not been told.",
    "scrub.prepared": "Archives are written anew without a secret, and the log still names the old ones.",
    "scrub.recorded": "A secret is out of the log, and archives and files hold it.",
    "scrub.archives-replaced": "A secret is out of the log and of archives, and files hold it.",
    "scrub.files-overwritten": "A secret is out of all that can be read, and free pages of the database hold it.",
    "scrub.rewritten": "A secret is gone, and a note says that it is being removed.",
    "gc.before-removal": "Something that nobody needs is to be removed.",
    "gc.removed": "Something that nobody needs is removed.",
    "gc.kept": "A ref holds what a checkout had, and no event names it.",
    "gc.dropping": "The log says that checkpoints are given up, and their refs are there.",
    # The daemon.
    "daemon.locked": "The daemon has the lock of its store, and has not opened it.",
    "daemon.dispatching": "The daemon dispatches, and nobody can see that yet.",
    "daemon.leaving": "The daemon was told to end, and holds all that it held.",
}
"""What each is called, and where it lies."""


def _read(text: str) -> tuple[str, int]:
    """What the variable says: a point and the how manieth time."""
    name, _, count = text.partition(":")
    if name not in POINTS or not (count or "1").isdecimal() or int(count or "1") < 1:
        sys.stderr.write(
            f"error: {VARIABLE}={text!r} names no crash point\n"
            "hint: write NAME, or NAME:COUNT for the COUNT-th time; docs/crashes.md lists the names\n"
        )
        raise SystemExit(2)
    return name, int(count or "1")


_left = 0  # Times until it is the one; 0 where no point is meant.
_meant = ""
if os.environ.get(VARIABLE):
    _meant, _left = _read(os.environ[VARIABLE])


def _pass_by(name: str) -> None:
    """Nothing happens here."""


def _count(name: str) -> None:
    """End this process at once if this is the moment that is meant."""
    global _left
    if name == _meant:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


reach = _count if _meant else _pass_by
"""Called where a point lies, with its name as a literal (a test looks for these). Without the variable it does nothing."""
