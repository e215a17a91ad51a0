"""Which checkpoint a phrase means: "rewind to before bug fix", "3 steps", "2 hours ago", "last qa-engineer checkpoint".

Pure: from the phrase, the checkpoints and the present comes one checkpoint and, in plain words, how the phrase was
understood; or a refusal that says what would be understood. Nothing is guessed between two that fit equally well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from parallel_agents.eventstore.errors import Ambiguous, UnknownCheckpoint, nearest
from parallel_agents.rewind_times import NUMBERS, local, moment_of, one_of
from parallel_agents.rewind_words import FILLERS, fit, stem, words

Found = Mapping[str, Any]
"""A checkpoint as ``checkpoints.list_of`` gives it; of its fields only checkpoint_id, seq and at are needed."""

ENOUGH = 0.6  # Of the words asked for, so that of two both have to fit and of three two.
_PREFIX = 4  # Letters of an id that stand for all of it.
_NAMED = 5  # Checkpoints that a refusal names.
_ID = re.compile(r"[a-z][a-z2-7]*")

_VERB = re.compile(
    r"(?:please )?(?:rewind|roll(?:ing)? ?back|go|get|return|restore|revert|reset|undo|take|bring|jump|checkout)\b"
    r"(?: (?:me|us|it|all|everything|(?:the )?files))?(?: back)?(?: (?:to|until|till)\b)?\s*"
)
_STEPS = re.compile(
    rf"(?:the )?(?:(?:last|by|back) )*(?P<count>\d{{1,9}}|{one_of(NUMBERS)})? ?(?:steps?|checkpoints?)(?: (?:back|ago))?"
)
_LATEST = re.compile(r"(?:the )?(?P<which>last|latest|newest|most recent|previous)(?: (?:checkpoint|step|one))?")
_FIRST = re.compile(
    r"(?:the )?(?:(?:very )?(?:first|oldest|earliest)(?: (?:checkpoint|one))?|beginning|(?:very )?start)"
)
_STATE = re.compile(r"(?:the )?(?:(?:last )?(?:checkpoints?|state|version|files)\b)? ?(?:(?:as )?(?:of|from|at)\b)? ?")
_RELATION = re.compile(
    r"(?:the )?(?:(?:state|moment|point|checkpoint) )?(?:just |right |shortly )?"
    r"(?:(?P<before>before|prior to|preceding|until|pre)|(?P<after>after|since|following|post))\b[ -]?"
)
_WHICH = re.compile(r"\b(?:(?P<last>last|latest|newest|most recent|previous)|(?P<first>first|oldest|earliest))\b")

Relation = Literal["before", "after", ""]


class Understood(NamedTuple):
    """A checkpoint, and how the phrase that led to it was understood."""

    checkpoint: Found
    reading: str


def understand(phrase: str, checkpoints: Iterable[Found], now: datetime) -> Understood:
    """The checkpoint that a phrase means.

    In this order: an id, a label, the beginning of an id; steps back; a time; an agent type; the words of labels,
    descriptions, tags and tasks.

    Args:
        checkpoints: in any order.
        now: the present, with its zone.
    Raises:
        UnknownCheckpoint: nothing fits.
        Ambiguous: several fit equally well.
    """
    known = _Known(checkpoints)
    said = " ".join(phrase.split()).strip("'\"` .")
    rest = _VERB.sub("", said.casefold(), count=1) if _VERB.match(said.casefold()) else said.casefold()
    rest = rest.strip("'\"` .")
    if not known.all:
        raise UnknownCheckpoint("there is no checkpoint yet", hint="`parallel-agents checkpoint create` makes one")
    if not rest:
        raise UnknownCheckpoint(
            f"{phrase!r} names no checkpoint", hint='say which, such as "3 steps", "2 hours ago" or "before bug fix"'
        )
    readers: tuple[Callable[[], Understood | None], ...] = (
        lambda: known.by_name(phrase, (said, rest)),
        lambda: known.by_steps(rest),
        lambda: known.by_time(rest, now),
        lambda: known.by_words(phrase, rest),
    )
    for read in readers:
        if (found := read()) is not None:
            return found
    raise UnknownCheckpoint(f"no checkpoint fits {phrase!r}", hint=_offer(rest, known.all))


def find_by_name(text: str, checkpoints: Iterable[Found]) -> Understood | None:
    """The checkpoint of that id, or of that label, or whose id begins so; None where there is none.

    Raises:
        Ambiguous: several have that label, or ids that begin so.
    """
    said = text.strip()
    named = (one for one in checkpoints if _may_be_named(one, said))  # There may be very many of the others.
    return _Known(named).by_name(text, (said,))


def _may_be_named(one: Found, said: str) -> bool:
    return str(one["checkpoint_id"]).startswith(said) or str(one.get("label") or "").casefold() == said.casefold()


def fitting(text: str, checkpoints: Iterable[Found]) -> list[Found]:
    """The checkpoints whose texts fit the words best, equally well, oldest first."""
    asked = [word for word in words(text) if word not in FILLERS]
    return _Known(checkpoints).fitting(asked) if asked else []


def standing_at(checkpoints: Iterable[Found], at: datetime) -> Found | None:
    """The last checkpoint made at a time or before, and not undone by then; None where there is none."""
    until = [one for one in _Known(checkpoints).all if _at(one) <= at and not _was_undone(one, at)]
    return until[-1] if until else None


def describe(checkpoint: Found) -> str:
    """A checkpoint in words: its id, label and time."""
    label = f' "{checkpoint["label"]}"' if checkpoint.get("label") else ""
    kind = str(checkpoint.get("kind") or "").replace("_", " ")
    undone = ", undone" if checkpoint.get("undone") else ""
    return f"{checkpoint['checkpoint_id']}{label} ({kind + ', ' if kind else ''}{local(_at(checkpoint))}{undone})"


class _Known:
    """The checkpoints that there are, in order, with what belongs together."""

    def __init__(self, checkpoints: Iterable[Found]) -> None:
        self.all = sorted(checkpoints, key=lambda one: int(one["seq"]))
        self.ids = {str(one["checkpoint_id"]): one for one in self.all}
        self.before_of: dict[str, Found] = {}  # Id of a checkpoint after something -> the one before the same.
        self.after_of: dict[str, Found] = {}
        opened: dict[tuple[Any, ...], Found] = {}
        for one in self.all:
            moment, key = _moment(one), _occasion(one)
            if key is None:
                continue
            if moment == "before":
                opened[key] = one
            elif moment == "after" and (first := opened.pop(key, None)) is not None:
                self.before_of[str(one["checkpoint_id"])] = first
                self.after_of[str(first["checkpoint_id"])] = one

    def by_name(self, phrase: str, said: Sequence[str]) -> Understood | None:
        """An id, all of a label, or the beginning of an id."""
        for text in said:
            if text in self.ids:
                return Understood(self.ids[text], f"the checkpoint {describe(self.ids[text])}")
        for text in said:
            same = [one for one in self.all if str(one.get("label") or "").casefold() == text.casefold()]
            if same:
                return _the_one(phrase, same, lambda one: f"the checkpoint of that label: {describe(one)}")
        text = said[-1]
        if len(text) >= _PREFIX and _ID.fullmatch(text):
            begun = [one for name, one in self.ids.items() if name.startswith(text)]
            if begun:
                return _the_one(phrase, begun, lambda one: f"the checkpoint whose id begins so: {describe(one)}")
        return None

    def by_steps(self, said: str) -> Understood | None:
        """So many checkpoints back, the latest being the first of them; what was undone is not counted."""
        line = [one for one in self.all if not one.get("undone")]
        if _FIRST.fullmatch(said):
            return Understood(self.all[0], f"the first checkpoint: {describe(self.all[0])}")
        if _LATEST.fullmatch(said):
            count = 1
        elif (match := _STEPS.fullmatch(said)) is not None and (match["count"] or "back" in said or said == "step"):
            count = _number(match["count"]) if match["count"] else 1
        else:
            return None
        if not 1 <= count <= len(line):
            steps = "1 step leads" if len(line) == 1 else f"1 to {len(line)} steps lead"
            raise UnknownCheckpoint(
                f"there are no {count} checkpoints to go back by", hint=f"{steps} somewhere; `checkpoints` lists them"
            )
        found = line[-count]
        return Understood(found, f"{_nth_last(count)} checkpoint: {describe(found)}")

    def by_time(self, said: str, now: datetime) -> Understood | None:
        """What the files were at a time: the last checkpoint until then that was not undone at that time."""
        relation, rest = _relation(said)
        try:
            moment = moment_of(rest, now) or moment_of(_STATE.sub("", rest, count=1), now)
            if moment is None and relation:  # Such as "before now", which is no relation but part of the time.
                relation, moment = "", moment_of(said, now)
        except OverflowError:
            raise UnknownCheckpoint(f"{said!r} lies outside of the calendar", hint=f"now is {local(now)}") from None
        if moment is None:
            return None
        if moment.begin > now:
            raise UnknownCheckpoint(f"{moment.spoken} has not come yet", hint=f"now is {local(now)}")
        if relation == "after":
            later = [one for one in self.all if _at(one) > moment.end and not one.get("undone")]
            if later:
                return Understood(later[0], f"the first checkpoint after {moment.spoken}: {describe(later[0])}")
            raise UnknownCheckpoint(f"no checkpoint was made after {moment.spoken}", hint=_newest(self.all))
        limit = moment.begin if relation == "before" else moment.end
        earlier = [
            one
            for one in self.all
            if (_at(one) < limit or (not relation and _at(one) == limit)) and not _was_undone(one, limit)
        ]
        how = "before" if relation == "before" else "at or before"
        if not earlier:
            raise UnknownCheckpoint(
                f"no checkpoint was made {how} {moment.spoken}", hint=f"the oldest is {describe(self.all[0])}"
            )
        return Understood(earlier[-1], f"the last checkpoint {how} {moment.spoken}: {describe(earlier[-1])}")

    def by_words(self, phrase: str, said: str) -> Understood | None:
        """By agent type, where the words name one; else the checkpoints whose texts fit the words best."""
        relation, rest = _relation(said)
        which = _WHICH.search(rest)
        asked = [word for word in words(_WHICH.sub(" ", rest)) if word not in FILLERS]
        if not asked and (which is None or not relation):
            return None
        fitting = f"that fits {' '.join(asked)!r}" if asked else "there is"
        found = self._of_agent(asked)
        if found:
            fitting = f"of {found[0]['agent_type']}"
        else:
            found = self.fitting(asked) if asked else self.all
        if not found:
            return None
        if which is not None:
            standing = [one for one in found if not one.get("undone")] or found
            found = [standing[-1 if which["last"] else 0]]
        what = f"the {which[0] + ' ' if which is not None else ''}checkpoint {fitting}"
        reached: dict[str, tuple[Found, Found]] = {}
        for one in found:
            target = self._related(one, relation)
            if target is not None:
                reached.setdefault(str(target["checkpoint_id"]), (target, one))
        if not reached:
            raise UnknownCheckpoint(f"there is no checkpoint {relation} {describe(found[0])}", hint=_newest(self.all))

        def reading(target: Found) -> str:
            source = reached[str(target["checkpoint_id"])][1]
            if target is source:
                return f"{what}: {describe(target)}"
            return f"the one {relation or 'after'} {what}, {describe(source)}: {describe(target)}"

        return _the_one(phrase, [target for target, _ in reached.values()], reading)

    def _of_agent(self, asked: Sequence[str]) -> list[Found]:
        return [one for one in self.all if one.get("agent_type") and words(str(one["agent_type"])) == list(asked)]

    def fitting(self, asked: Sequence[str]) -> list[Found]:
        """Those that fit best, by three measures: how many of the words, whether they are all of the label, and where."""
        scored = []
        whole = {stem(word) for word in asked}
        for one in self.all:
            fits = [(fit(asked, text), -place) for place, text in enumerate(_texts(one))]
            best, place = max(fits)
            if best >= ENOUGH:
                label = {stem(word) for word in words(str(one.get("label") or "")) if word not in FILLERS}
                scored.append(((round(best, 6), label == whole, place), one))
        top = max((score for score, _ in scored), default=None)
        return [one for score, one in scored if score == top]

    def _related(self, one: Found, relation: Relation) -> Found | None:
        """The checkpoint before or after what another one belongs to; without a relation, what became of it."""
        name = str(one["checkpoint_id"])
        moment = _moment(one)
        if relation == "before":
            if moment == "before":
                return one
            return self.before_of.get(name) or self._previous(one)
        if moment != "before":
            return one
        after = self.after_of.get(name)
        if after is not None or relation == "":
            return after or one
        return next((later for later in self.all if later["seq"] > one["seq"] and not later.get("undone")), None)

    def _previous(self, one: Found) -> Found | None:
        """The one before it on its line, where that is known."""
        if one.get("parent") in self.ids:
            return self.ids[str(one["parent"])]
        earlier = [other for other in self.all if other["seq"] < one["seq"]]
        return next((other for other in reversed(earlier) if not other.get("undone")), earlier[-1] if earlier else None)


def _the_one(phrase: str, found: Sequence[Found], reading: Callable[[Found], str]) -> Understood:
    """The only one of these; what was undone is a worse reading than what was not."""
    standing = [one for one in found if not one.get("undone")] or list(found)
    if len(standing) == 1:
        return Understood(standing[0], reading(standing[0]))
    shown = "; ".join(reading(one) for one in standing[:_NAMED])
    more = f"; and {len(standing) - _NAMED} more" if len(standing) > _NAMED else ""
    raise Ambiguous(
        f"{phrase!r} fits {len(standing)} checkpoints equally well: {shown}{more}",
        hint=f"say it by its id, such as {standing[-1]['checkpoint_id']}, or add first or last",
    )


def _relation(said: str) -> tuple[Relation, str]:
    match = _RELATION.match(said)
    if match is None:
        return "", said
    return ("before" if match["before"] else "after"), said[match.end() :].strip("'\"` ")


def _moment(one: Found) -> Literal["before", "after", ""]:
    """Which side of what it is called after a checkpoint lies on; a mark that somebody made says nothing of that."""
    kind, first = str(one.get("kind") or ""), (words(str(one.get("label") or "")) or [""])[0]
    if kind.startswith("before_") or first in ("before", "pre"):
        return "before"
    return "after" if kind.startswith("after_") or first in ("after", "post") else ""


def _occasion(one: Found) -> tuple[Any, ...] | None:
    """What a checkpoint before and one after have in common: the attempt, the run, or the agent where there is neither."""
    kind = str(one.get("kind") or "")
    if kind in ("before_run", "after_run"):
        return ("run", one.get("run_id"))
    if one.get("attempt_id"):
        return ("attempt", one["attempt_id"])
    return ("agent", one.get("run_id"), one["agent_type"]) if one.get("agent_type") else None


def _texts(one: Found) -> list[list[str]]:
    """What can be said of a checkpoint, the most telling first."""
    kind = str(one.get("kind") or "")
    of_kind = "" if kind == "manual" else kind.replace("before_restore", "rollback restore")
    stage = "" if one.get("stage") is None else f"stage {one['stage']}"
    label, description = str(one.get("label") or ""), str(one.get("description") or "")
    around = f"{' '.join(one.get('tags') or ())} {one.get('task_id') or ''} {one.get('agent_type') or ''}"
    texts = [label, description, around, f"{of_kind} {stage}"]
    return [words(text) for text in (*texts, " ".join(texts))]


def _at(one: Found) -> datetime:
    return datetime.fromisoformat(str(one["at"])).astimezone(UTC)


def _was_undone(one: Found, at: datetime) -> bool:
    """Whether a checkpoint was undone at a time; where it is not known since when, it was not."""
    since = one.get("undone_at")
    return since is not None and datetime.fromisoformat(str(since)) <= at


def _number(said: str) -> int:
    return NUMBERS.get(said) or int(said)


def _nth_last(count: int) -> str:
    if count == 1:
        return "the last"
    ending = "th" if count % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(count % 10, "th")
    return f"the {count}{ending} last"


def _newest(known: Sequence[Found]) -> str:
    return f"the newest is {describe(known[-1])}"


def _offer(said: str, known: Sequence[Found]) -> str:
    labels = {str(one["label"]) for one in known if one.get("label")}
    return nearest(said, labels or {str(one["checkpoint_id"]) for one in known})
