"""Schedules of teacher and student updates: pure arithmetic on batch numbers, no torch.

A schedule is a sequence of events. ``teach b`` updates the teacher on batch b; ``learn b`` updates the student on
batch b. ``epoch e`` completes e passes of the teacher, so it is time to evaluate. Between two replays the teacher runs
ahead for one *block* of batches; then the student replays the block in the same order. With an interval of s epochs
and L batches an epoch a block holds int(L * s) batches; s = 0 is online distillation, batch by batch.

>>> [f"{e.kind} {e.index}" for e in spaced_schedule(epochs=1, batches_per_epoch=4, interval=0.5)]
['teach 0', 'teach 1', 'learn 0', 'learn 1', 'teach 2', 'teach 3', 'learn 2', 'learn 3', 'epoch 1']

Taught in notebooks/05_spaced_kd.ipynb.
"""

from __future__ import annotations

from itertools import chain, repeat
from typing import Any, Iterable, Iterator, NamedTuple

from .errors import InputError, nearest, whole

TAILS, COUNTERS = ("replay", "drop"), ("one", "epoch_early")


class Event(NamedTuple):
    kind: str  # "teach", "learn", "epoch"; "forward" (see `spaced_schedule`, teach_last), "grow"
    # The batch, counted from 0 over the whole run; for "epoch" the epochs completed. A tuple's `index` is a method.
    index: int  # type: ignore[assignment]
    block: int  # the block that the batch belongs to, counted from 0


ALONE = ("learn", "forward", "grow")  # what each of several students who share a teacher does by itself


class Counts(NamedTuple):
    teach: int  # updates of the teacher
    learn: int  # updates of the student
    never: int  # batches that the student never learns
    blocks: int  # replays
    first: int  # batches before the first replay


def interval_batches(batches_per_epoch: int, interval: float) -> int:
    """Return a block's batches: the interval in epochs times an epoch's batches, rounded down (released programs).

    At least one, unless the interval is 0: 49 * (1 / 49) is below 1.
    """
    return max(int(batches_per_epoch * abs(interval)), int(interval != 0))


def block_ends(batches_per_epoch: int, length: int, total: int, rule: str, counter: str, seed: int) -> Iterator[int]:
    """Yield, without end, the batch counts at which a replay starts.

    rule: of `LENGTHS`; where its lengths end, blocks of `length` follow. The counter `epoch_early` starts one epoch
    below zero, as the released self-KD program does (A4).

    Raises:
        InputError: a rule that cannot be called so, or a length that is no positive whole number.
    """
    length = max(length, 1)  # an interval of 0 is a block of one batch
    end = batches_per_epoch % length if counter == "epoch_early" else 0
    if end:
        yield end
    try:
        lengths = iter(LENGTHS[rule](length, total, seed))
    except TypeError as error:
        raise InputError(f"The rule {rule} made no blocks ({error}): give a function of length, total and seed that "
                         "yields their lengths.") from error
    for block in chain(lengths, repeat(length)):
        end += whole(f"A block of the rule {rule}", block, 1)
        yield end


# Rules: (length of a fixed block, batches of the run, seed) -> lengths of the blocks, in batches
LENGTHS: dict[str, Any] = {"fixed": lambda length, total, seed: repeat(length)}  # and those that users register
RULES = (*LENGTHS, "constant")  # ours; constant has no blocks


def spaced_schedule(epochs: int, batches_per_epoch: int, interval: float, *, rule: str = "fixed",
                    tail: str = "replay", counter: str = "one", teach_last: bool = True,
                    extra_step: bool = False, seed: int = 0) -> Iterator[Event]:
    """Yield the events of one run in order.

    Args:
        epochs: passes of the teacher over the data.
        batches_per_epoch: L.
        interval: s, in epochs; 0 for online distillation. A negative interval swaps the roles: the student learns a
            block, then the teacher; with "constant" the teacher always has int(L |s|) updates fewer.
        rule: "fixed" block lengths, or those of a registered rule. "constant" has no blocks: the student
            learns a batch once the teacher leads by int(L s) updates, or has finished (ours, a control for A6).
        tail: "replay" learns the last, partial block too (ours); "drop" loses it (released programs, A11).
        counter: "one", or "epoch_early" for the released self-KD program (A4).
        teach_last: False leaves out the teacher's update on the batch that starts a replay, as the released self-KD
            program does: its replay updates the teacher on that batch anyway. For blocks of one batch and more,
            "forward b" takes its place: a pass without an update, which moves batch statistics.
        extra_step: one more "learn", of the next batch, follows a replay of whole epochs
            (released transformer programs, V10; blocks only).
        seed: of a registered rule.

    Raises:
        InputError: an unknown rule, tail or counter, or a number out of range.
    """
    for kind, given, allowed in (("rule", rule, (*LENGTHS, "constant")), ("tail", tail, TAILS),
                                 ("counter", counter, COUNTERS)):
        if given not in allowed:
            raise InputError(nearest(f"schedule {kind}", given, allowed))
    if not (epochs >= 1 and batches_per_epoch >= 1 and abs(interval) <= epochs):  # NaN fails too
        raise InputError(f"A schedule of {epochs} epochs of {batches_per_epoch} batches with interval = {interval} "
                         "cannot be made: give at least one of each, and an interval up to the number of epochs.")
    if interval < 0:
        if rule not in ("fixed", "constant"):
            raise InputError(f'A teacher that is behind has blocks of a fixed length or none, and rule = "{rule}": '
                             'choose "fixed" or "constant".')
        return _behind(epochs, batches_per_epoch, interval_batches(batches_per_epoch, interval), rule)
    if rule == "constant":
        return _delayed(epochs, batches_per_epoch, max(interval_batches(batches_per_epoch, interval), 1) - 1, tail)
    return _events(epochs, batches_per_epoch, interval, rule, tail, counter, teach_last, extra_step, seed)


class Course(NamedTuple):
    """The length of a run whose student grows through grades (Education Distillation); other runs have one grade.

    grades: the student's (epochs, batches an epoch) in each grade. lessons: all teachers' batches an epoch, else 0.
    """

    grades: tuple[tuple[int, int], ...]
    lessons: int = 0

    @property
    def epochs(self) -> int:
        return sum(epochs for epochs, _ in self.grades)

    def locate(self, batch: int) -> tuple[int, int]:
        """Return the grade of a student batch and its number within it; the last grade keeps batches past the end."""
        for grade, (epochs, batches) in enumerate(self.grades[:-1]):
            if batch < epochs * batches:
                return grade, batch
            batch -= epochs * batches
        return len(self.grades) - 1, batch

    def progress(self, batch: int, restart: bool) -> tuple[int, int]:
        """Return (done, total) of the student, in its grade or over all epochs, in batches of the grade's length."""
        grade, local = self.locate(batch)
        epochs, batches = self.grades[grade]
        if restart:
            return local, epochs * batches
        before = sum(earlier for earlier, _ in self.grades[:grade])
        return before * batches + local, self.epochs * batches


def graded_schedule(course: Course, interval: float, **options) -> Iterator[Event]:
    """Yield the events of a student that grows through grades; "grow g" ends grade g, counted from 1.

    No block straddles two grades. An interval of all epochs trains the teachers to their end first.

    >>> events = graded_schedule(Course(((1, 1), (1, 2)), lessons=2), interval=0.0)
    >>> [f"{e.kind} {e.index}" for e in events]  # doctest: +NORMALIZE_WHITESPACE
    ['teach 0', 'teach 1', 'learn 0', 'epoch 1', 'grow 1',
     'teach 2', 'learn 1', 'teach 3', 'learn 2', 'epoch 2']
    """
    if interval < course.epochs:
        yield from _graded(course, interval, options)
        return
    last = Event("epoch", course.epochs, 0)
    yield from (e for e in _graded(course, 0, {}) if e.kind in ("teach", "epoch") and e[:2] != last[:2])
    yield from (e._replace(block=0) for e in _graded(course, 0, {}) if e.kind in ("learn", "grow"))
    yield last


def _graded(course: Course, interval: float, options: dict) -> Iterator[Event]:
    batches_before = epochs_before = blocks = last = 0
    for grade, (epochs, batches) in enumerate(course.grades, start=1):
        for kind, index, block in spaced_schedule(epochs, batches, min(interval, epochs), **options):
            block += blocks
            last = block if kind == "learn" else last
            if kind == "teach":  # as many lessons as bring both to the epoch's end together
                begin, end = (epochs_before * course.lessons + done * course.lessons // batches
                              for done in (index, index + 1))
                yield from (Event("teach", lesson, block) for lesson in range(begin, end))
            else:
                yield Event(kind, index + (epochs_before if kind == "epoch" else batches_before), block)
        batches_before, epochs_before, blocks = batches_before + epochs * batches, epochs_before + epochs, last + 1
        if grade < len(course.grades):
            yield Event("grow", grade, last)


def _delayed(epochs: int, batches_per_epoch: int, delay: int, tail: str) -> Iterator[Event]:
    """Delay the student by a constant number of updates; at the end it catches up."""
    total = epochs * batches_per_epoch
    for batch in range(total):
        yield Event("teach", batch, batch)
        if batch >= delay:
            yield Event("learn", batch - delay, batch - delay)
        if batch + 1 == total and tail == "replay":
            yield from (Event("learn", late, late) for late in range(total - min(delay, total), total))
        if (batch + 1) % batches_per_epoch == 0:
            yield Event("epoch", (batch + 1) // batches_per_epoch, batch)


def _behind(epochs: int, batches_per_epoch: int, length: int, rule: str) -> Iterator[Event]:
    """Update the student first; epochs end with the teacher's, as in all schedules that share it.

    >>> [f"{e.kind} {e.index}" for e in spaced_schedule(epochs=1, batches_per_epoch=4, interval=-0.5)]
    ['learn 0', 'learn 1', 'teach 0', 'teach 1', 'learn 2', 'learn 3', 'teach 2', 'teach 3', 'epoch 1']
    """
    total = epochs * batches_per_epoch
    block = 1 if rule == "constant" else length
    for batch in range(total):
        yield Event("learn", batch, batch // block)
        if rule == "constant":
            ready = range(max(batch - length, 0), batch - length + 1)
        else:
            ready = range(batch + 1 - length, batch + 1) if (batch + 1) % length == 0 else range(0)
        yield from _taught(ready, batches_per_epoch, block)
    left = min(length, total) if rule == "constant" else total % length
    yield from _taught(range(total - left, total), batches_per_epoch, block)


def _taught(batches: Iterable[int], batches_per_epoch: int, block: int) -> Iterator[Event]:
    for batch in batches:
        yield Event("teach", batch, batch // block)
        if (batch + 1) % batches_per_epoch == 0:
            yield Event("epoch", (batch + 1) // batches_per_epoch, batch // block)


def snapshots(epochs: int, batches_per_epoch: int, interval: float) -> Iterator[Event]:
    """Yield the events of a student taught by its own past: "teach b" takes a snapshot after each block.

    >>> [f"{e.kind} {e.index}" for e in snapshots(epochs=1, batches_per_epoch=3, interval=0.67)]
    ['learn 0', 'learn 1', 'teach 1', 'learn 2', 'epoch 1']
    """
    length = max(interval_batches(batches_per_epoch, interval), 1)
    for batch in range(epochs * batches_per_epoch):
        yield Event("learn", batch, batch // length)
        if (batch + 1) % length == 0:
            yield Event("teach", batch, batch // length)
        if (batch + 1) % batches_per_epoch == 0:
            yield Event("epoch", (batch + 1) // batches_per_epoch, batch // length)


def _events(epochs, batches_per_epoch, interval, rule, tail, counter, teach_last, extra_step, seed
            ) -> Iterator[Event]:
    total = epochs * batches_per_epoch
    length = interval_batches(batches_per_epoch, interval)
    ends = block_ends(batches_per_epoch, length, total, rule, counter, seed)
    start, end, block = 0, next(ends), 0
    for batch in range(total):
        replay = batch + 1 == end
        if teach_last or not replay:
            yield Event("teach", batch, block)
        elif length:
            yield Event("forward", batch, block)
        if replay or (tail == "replay" and batch + 1 == total):
            more = extra_step and replay and (batch + 1 - start) % batches_per_epoch == 0
            for earlier in range(start, batch + 1 + more):
                yield Event("learn", earlier, block)
            start, end, block = batch + 1, next(ends), block + 1
        if (batch + 1) % batches_per_epoch == 0:
            yield Event("epoch", (batch + 1) // batches_per_epoch, block)


def one_a_block(events: Iterable[Event]) -> Iterator[Event]:
    """Keep only the last event of each replay, for a student that makes one step a block.

    >>> [f"{e.kind} {e.index}" for e in one_a_block(spaced_schedule(epochs=1, batches_per_epoch=3, interval=0.67))]
    ['teach 0', 'teach 1', 'learn 1', 'teach 2', 'learn 2', 'epoch 1']
    """
    last = None
    for event in events:
        if event.kind == "learn":
            last = event
            continue
        if last:
            yield last
            last = None
        yield event  # an epoch ends every schedule, so no step is left over


def lockstep(schedules: dict[Any, Iterator[Event]]) -> Iterator[tuple[Event, list]]:
    """Merge the schedules of students that share one teacher; yield each event with the names of its students.

    Every student's events keep their order, and one `teach b` or `epoch e` serves all. If the caller deletes a student
    from `schedules`, it is left out from then on. One schedule alone passes through unchanged.

    >>> two = {name: spaced_schedule(1, 2, s) for name, s in (("online", 0), ("spaced", 1))}
    >>> [f"{e.kind} {e.index}: {', '.join(who)}" for e, who in lockstep(two)][:4]
    ['teach 0: online, spaced', 'learn 0: online', 'teach 1: online, spaced', 'learn 1: online']
    """
    ahead = {name: next(events, None) for name, events in schedules.items()}
    while schedules:
        for name, events in list(schedules.items()):
            while name in schedules and (event := ahead[name]) and event.kind in ALONE:
                yield event, [name]
                ahead[name] = next(events, None)
        shared = ahead[next(iter(schedules))] if schedules else None
        if shared is None:
            return
        yield shared, list(schedules)
        ahead = {name: next(events, None) for name, events in schedules.items()}


def counts(events: Iterable[Event]) -> Counts:
    """Count a schedule's updates, skipped batches and replays.

    >>> counts(spaced_schedule(epochs=5, batches_per_epoch=7, interval=1.5, tail="drop"))
    Counts(teach=35, learn=30, never=5, blocks=3, first=10)
    """
    events = [event for event in events if event.kind in ("teach", "learn")]
    learned = [event for event in events if event.kind == "learn"]
    never = {event.index for event in events} - {event.index for event in learned}
    return Counts(teach=len(events) - len(learned), learn=len(learned), never=len(never),
                  blocks=len({event.block for event in learned}),
                  first=sum(event.block == 0 for event in learned))


def leads(events: Iterable[Event]) -> list[int]:
    """Return the teacher's lead in updates at each update of the student: the sawtooth (A6).

    >>> leads(spaced_schedule(epochs=1, batches_per_epoch=6, interval=0.5))
    [3, 2, 1, 3, 2, 1]
    """
    taught, lead = 0, list[int]()
    for kind, *_ in events:
        taught += kind == "teach"
        if kind == "learn":
            lead.append(taught - len(lead))
    return lead
