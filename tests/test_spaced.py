"""The spaced iterator: the order of the schedule, batches of its own, any loader, and a walk that goes on mid-block."""

import array
import copy
import itertools
import json
import re
import subprocess
import sys
import types
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from spacedkd_lib import Spaced, spaced_schedule, spacing as module
from spacedkd_lib.errors import InputError
from spacedkd_lib.schedule import LENGTHS

INTERVALS = (0, 0.5, 1, 1.5, 2, 3, -0.5, -1, -2)


def walk(loader, *arguments, **options):
    return [(step.kind, step.index, step.batch) for step in Spaced(loader, *arguments, **options)]


@pytest.mark.parametrize("length", (1, 2, 3, 5))
def test_it_follows_the_schedule_and_repeats_each_batch(length):
    """Batch i of epoch e is the number e * L + i: each student's batch is its teacher's."""
    class Loader:
        epoch = -1

        def __len__(self):
            return length

        def __iter__(self):
            self.epoch += 1
            return iter(range(self.epoch * length, (self.epoch + 1) * length))
    for interval, rule, tail in itertools.product(INTERVALS, ("fixed", "constant"), ("replay", "drop")):
        if interval and (length * abs(interval) < 1 or interval < 0 and (rule, tail) != ("fixed", "replay")):
            continue
        events = [event[:2] for event in spaced_schedule(3, length, interval, rule=rule, tail=tail)]
        walked = walk(Loader(), 3, interval, rule=rule, tail=tail)
        assert [step[:2] for step in walked] == events
        assert all(batch is None if kind == "epoch" else batch == index for kind, index, batch in walked)


def test_a_step_names_its_pass_and_the_end_of_an_epoch_the_pass_that_ended():
    walked = [(step.kind, step.index, step.epoch) for step in Spaced("ab", 2, 0)]
    assert [(index, epoch) for kind, index, epoch in walked if kind == "epoch"] == [(1, 0), (2, 1)]
    assert all(epoch == index // 2 for kind, index, epoch in walked if kind != "epoch")


@pytest.mark.parametrize("interval", INTERVALS)
def test_a_function_of_one_answer_walks_as_its_answer(interval):
    """But that an epoch ends with its last teacher's update."""
    fixed, asked = ([step for step in Spaced("ab", 4, given) if step.kind != "epoch"]
                    for given in (interval, lambda losses: interval))
    assert asked == fixed


Pair = namedtuple("Pair", "x y")


@pytest.mark.parametrize("make", (lambda x: x, lambda x: [x, "name"], lambda x: {"x": x, "n": 3}, lambda x: Pair(x, [x]),
                                  lambda x: (x, {"deep": (x,)})))
def test_what_the_teachers_step_and_the_loaders_buffer_change_does_not_reach_the_student(make):
    buffer = torch.zeros(3)  # a loader that reuses its memory

    def loader():
        for number in range(4):
            buffer.fill_(number)
            yield make(buffer)

    class Loader(list):
        def __iter__(self):
            return loader()
    learnt = []
    for step in Spaced(Loader(range(4)), 1, 1):
        if step.kind == "learn":
            module._mapped(lambda value: learnt.append(float(value[0])) if torch.is_tensor(value) else None, step.batch)
        elif step.kind == "teach":
            module._mapped(lambda value: value.mul_(-1) if torch.is_tensor(value) else None, step.batch)
    assert list(dict.fromkeys(learnt)) == [0, 1, 2, 3]
    assert type(step.batch) in (type(make(buffer)), type(None))


@dataclass
class Data:
    x: object


@dataclass(frozen=True, slots=True)
class Frozen:
    x: object


class Named(UserDict):
    def __init__(self, name, x):
        super().__init__(x=x)


CONTAINERS = (
    (Data, lambda batch: batch.x), (Frozen, lambda batch: batch.x), (lambda x: Data({"x": [x]}), lambda batch: batch.x["x"][0]),
    (lambda x: defaultdict(list, x=x), lambda batch: batch["x"]), (lambda x: OrderedDict(x=x), lambda batch: batch["x"]),
    (lambda x: Named("name", x), lambda batch: batch["x"]))


@pytest.mark.parametrize("buffer", (torch.zeros(1), np.zeros(1), array.array("d", [0.0])), ids=("tensor", "numpy", "array"))
@pytest.mark.parametrize("make, read", (*CONTAINERS, (lambda x: types.SimpleNamespace(x=x), lambda batch: batch.x),
                                        (lambda x: np.array([{"x": x}]), lambda batch: batch[0]["x"])))
def test_held_batches_own_their_memory(make, read, buffer):
    class Loader(list):
        def __iter__(self):
            for number in range(3):
                buffer[0] = number
                yield make(buffer)
    steps = [step for step in Spaced(Loader("abc"), 1, 1) if step.kind == "learn"]
    assert [float(read(step.batch)[0]) for step in steps] == [0, 1, 2]
    assert type(steps[0].batch) is type(make(buffer))


@pytest.mark.parametrize("make, read", (*CONTAINERS, (lambda x: pack_sequence([x]), lambda batch: batch.data)))
def test_a_device_is_reached_through_containers(make, read):
    batch = make(torch.ones(2))
    steps = [step for step in Spaced([batch], 1, 1, device="meta") if step.kind != "epoch"]
    assert [read(step.batch).device.type for step in steps] == ["meta", "meta"] and read(batch).device.type == "cpu"


def test_loaders_of_torch_with_workers_samplers_and_without_a_length():
    data = TensorDataset(torch.arange(12.0), torch.arange(12))
    sampler = DistributedSampler(data, num_replicas=2, rank=0, shuffle=True, seed=3)
    expected = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        expected += list(sampler)
    loader = DataLoader(data, batch_size=2, sampler=sampler, num_workers=1)
    for kind in ("teach", "learn"):
        steps = [step.batch for step in Spaced(loader, 2, 1.0) if step.kind == kind]
        assert torch.cat([y for _, y in steps]).tolist() == expected

    class Stream(IterableDataset):
        def __iter__(self):
            return iter(torch.arange(6.0))
    for kind in ("teach", "learn"):
        loader = DataLoader(data, batch_sampler=BatchSampler(sampler, 2, drop_last=False))
        steps = [step.batch for step in Spaced(loader, 2, 1.0) if step.kind == kind]
        assert torch.cat([y for _, y in steps]).tolist() == expected
    stream = DataLoader(Stream(), batch_size=None)
    assert len([1 for step in Spaced(stream, 2, 0.5, batches_per_epoch=6) if step.kind == "learn"]) == 12
    for wrong, told in ((5, "more than 5"), (7, "ended after 6 of 7 batches in epoch 1")):
        with pytest.raises(InputError, match=told):
            walk(stream, 2, 1, batches_per_epoch=wrong)
    with pytest.raises(InputError, match="ended after 0 of 3 batches in epoch 2"):
        walk(iter("abc"), 2, 1, batches_per_epoch=3)
    with pytest.raises(InputError, match="more than 3 batches in epoch 1"):
        walk("abcd", 1, 1, batches_per_epoch=3)


@pytest.mark.parametrize("interval", (0, 1.5, -1, lambda losses: 0.5 + len(losses["learn"]) % 2))
def test_a_walk_goes_on_in_the_middle_of_a_block(interval, tmp_path):
    data = [torch.full((2,), float(number)) for number in range(4)]

    def steps(walk):
        for step in walk:
            if step.kind == "learn":
                walk.report(step.index)
            yield step.kind, step.index, None if step.batch is None else step.batch.tolist()
    whole = list(steps(Spaced(data, 4, interval)))
    for stop in range(len(whole)):
        first = Spaced(data, 4, interval, spill=tmp_path)
        before = list(itertools.islice(steps(first), stop))
        state = copy.deepcopy(first.state_dict())
        again = Spaced(data, 4, interval)
        again.load_state_dict(state)
        assert before + list(steps(again)) == whole, stop


def test_a_state_that_was_json_goes_on_with_the_held_batches():
    first, again = Spaced([1, 2], 2, 1), Spaced([1, 2], 2, 1)
    begun = [plain_text(step) for step in itertools.islice(first, 1)]
    again.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert begun + list(map(plain_text, again)) == list(map(plain_text, Spaced([1, 2], 2, 1)))


def plain_text(step):
    return step.kind, step.index, step.batch


class Counted:
    """Numbered batches; one of them fails when it is drawn first."""

    def __init__(self, length, failing=None):
        self.length, self.failing, self.begun = length, failing, 0

    def __len__(self):
        return self.length

    def __iter__(self):
        self.begun += 1
        for number in range(self.length):
            if number == self.failing:
                self.failing = None
                raise OSError("try again")
            yield torch.full((2,), float(number))


def plain(step):
    return step.kind, step.index, step.block, None if step.batch is None else step.batch.tolist()


@pytest.mark.parametrize("interval", (0, 1.5, -1, lambda losses: 0.5 + len(losses["learn"]) % 2))
@pytest.mark.parametrize("size", (1, 3, 7))
def test_a_loop_that_was_left_is_gone_on_with(interval, size):
    whole = [plain(step) for step in Spaced(Counted(4), 3, interval)]
    loader, steps = Counted(4), []
    walk = Spaced(loader, 3, interval)
    for _ in range(0, len(whole), size):
        for step in walk:
            steps.append(plain(step))
            if len(steps) % size == 0:
                break
    assert steps == whole and loader.begun == 3 and list(walk) == []


def test_a_step_that_failed_is_tried_again(monkeypatch):
    def walked(walk):
        steps, failed = [], 0
        for _ in range(99):
            try:
                steps.append(plain(next(iter(walk))))
            except OSError:
                failed += 1
            except StopIteration:
                pass
        return steps, failed

    def every_second(function):
        calls = itertools.count()

        def unsteady(*arguments):
            if next(calls) % 2 == 0:
                raise OSError("try again")
            return function(*arguments)
        return unsteady
    whole, asked = ([plain(step) for step in Spaced(Counted(4), 2, interval)] for interval in (1, lambda losses: 1))
    assert walked(Spaced(Counted(4, failing=2), 2, 1)) == (whole, 1)
    assert walked(Spaced(Counted(4), 2, every_second(lambda losses: 1))) == (asked, 2)
    monkeypatch.setattr(module, "_moved", every_second(module._moved))
    assert walked(Spaced(Counted(4), 2, 1)) == (whole, 16)


@pytest.mark.parametrize("spilled", (False, True))
def test_a_state_is_apart_from_its_walk_and_takes_any_walk_back(spilled, tmp_path):
    data = [torch.full((1,), float(number)) for number in range(3)]
    walk = Spaced(data, 2, 1, spill=tmp_path if spilled else None)
    whole = [plain(step) for step in Spaced(data, 2, 1)]
    for _ in itertools.islice(walk, 2):
        pass
    state = walk.state_dict()
    for _ in range(2):
        steps = []
        for step in walk:
            steps.append(plain(step))
            if step.kind == "learn":
                step.batch.add_(7)
        assert steps == whole[2:]
        walk.load_state_dict(state)


def test_a_state_of_another_walk_is_refused():
    walk = Spaced("abcd", 2, 1)
    for other in (Spaced("abcd", 2, 2), Spaced("abcd", 3, 1), Spaced("abc", 2, 1), Spaced("abcd", 2, lambda losses: 1),
                  Spaced("abcd", 2, 1, rule="constant"), Spaced("abcd", 2, 1, tail="drop")):
        with pytest.raises(InputError, match="another walk"):
            walk.load_state_dict(other.state_dict())
    for state, told in (({}, "another walk"), (None, "The state"), ({"plan": walk.state_dict()["plan"]}, "The state")):
        with pytest.raises(InputError, match=told):
            walk.load_state_dict(state)
    assert len(list(walk)) == 18


@pytest.mark.parametrize("interval", (1, lambda losses: 1))
@pytest.mark.parametrize("damage", ({"held": 5}, {"drawn": "4"}, {"done": -1}, {"done": 1.5}, {"losses": {}}, {"losses": 1}),
                         ids=str)
def test_a_damaged_state_is_refused_and_the_walk_stays(interval, damage):
    walk, whole = Spaced("abcd", 2, interval), list(Spaced("abcd", 2, interval))
    begun = list(itertools.islice(walk, 3))
    with pytest.raises(InputError):
        walk.load_state_dict(walk.state_dict() | {"done": 1, "drawn": 1, "held": {}} | damage)
    assert begun + list(walk) == whole


@pytest.mark.parametrize("damage", ({"held": {}}, {"drawn": 0}, {"drawn": 6}), ids=str)
def test_no_other_batch_stands_in_for_one_that_a_state_lacks(damage):
    walk = Spaced("abcd", 2, 1)
    next(walk)
    walk.load_state_dict(walk.state_dict() | damage)
    with pytest.raises(InputError, match="is asked for and . comes from the loader"):
        list(walk)


def test_a_rule_that_makes_other_blocks_after_a_stop_is_refused(monkeypatch):
    lengths = iter((3, 2, 2))
    monkeypatch.setitem(LENGTHS, "drawn", lambda length, total, seed: iter([next(lengths)]))
    first, again = Spaced("abcd", 1, 0.5, rule="drawn"), Spaced("abcd", 1, 0.5, rule="drawn")
    list(itertools.islice(first, 3))
    again.load_state_dict(first.state_dict())
    with pytest.raises(InputError, match="a rule that makes the same blocks again"):
        list(again)


def test_a_state_can_be_loaded_as_plain_data(tmp_path):
    walk = Spaced("ab", np.int64(1), np.float64(1), seed=np.int64(3))
    torch.save(walk.state_dict(), tmp_path / "state")
    walk.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert [step.batch for step in walk if step.kind == "learn"] == ["a", "b"]


def test_the_least_interval_that_a_refusal_names_is_taken():
    for length in (*range(2, 2000), 10**4, 10**5 + 1):
        with pytest.raises(InputError) as refused:
            module._check_interval(0.9 / length, length)
        module._check_interval(float(re.search(r"at least ([\d.e-]+)\.$", str(refused.value))[1]), length)
    assert [step.batch for step in Spaced(range(49), 1, 1 / 49)][:4] == [0, 0, 1, 1]


def test_an_interval_that_is_a_function_sees_the_last_blocks_losses():
    seen = []

    def interval(losses):
        seen.append(losses)
        return 1 if losses["learn"] else 0.5
    walk = Spaced("abcd", 2, interval)
    blocks = [(step.kind, step.block) for step in walk if step.kind == "epoch" or walk.report(step.index, step.kind)
              or step.kind == "learn"]
    assert [block for kind, block in blocks if kind == "learn"] == [0, 0, 1, 1, 1, 1, 2, 2]
    assert seen[0] == {"teach": [], "learn": []} and seen[1] == {"teach": [0, 1], "learn": [0, 1]}


def test_held_batches_lie_in_files_and_too_large_blocks_are_refused(tmp_path, monkeypatch):
    walk = Spaced([np.zeros(4), np.ones(4)], 1, 1, spill=tmp_path)
    steps = iter(walk)
    next(steps), next(steps)
    assert len(list(tmp_path.glob("spaced-*/*"))) == 2
    assert [step.batch.tolist() for step in steps if step.kind == "learn"] == [[0.0] * 4, [1.0] * 4]
    assert not list(tmp_path.glob("spaced-*/*"))
    monkeypatch.setattr(module, "memory", lambda: 16)  # bytes
    with pytest.raises(InputError, match="A block of 2 batches takes .* give a smaller interval, or spill"):
        next(iter(Spaced([np.zeros(4)] * 2, 1, 1)))
    steps = iter(Spaced([np.zeros(2)] * 3, 1, lambda losses, answers=iter((1 / 3, 1)): next(answers)))
    next(steps), next(steps)
    with pytest.raises(InputError, match="A block of 2 batches takes"):
        next(steps)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=16))
    with pytest.raises(InputError, match="the disk of spill"):
        next(iter(Spaced([np.zeros(4)] * 2, 1, 1, spill=tmp_path)))
    monkeypatch.undo()
    with pytest.raises(InputError, match="leave spill out"):
        next(iter(Spaced([lambda: 1], 1, 1, spill=tmp_path)))
    with pytest.raises(InputError, match="cannot be copied"):
        next(iter(Spaced([sys], 1, 1)))
    for folder in (tmp_path / "nowhere", 5):
        with pytest.raises(InputError, match="spill = .* a folder that can be written"):
            Spaced("ab", 1, 1, spill=folder)


def test_a_spill_that_fails_ends_in_a_sentence_and_is_found_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    walk, whole = Spaced("abcd", 1, 0.5, spill="."), [step for step in Spaced("abcd", 1, 0.5)]
    monkeypatch.chdir("/")
    begun = [next(walk)]
    with monkeypatch.context() as patch:
        patch.setattr(module.Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError("No space left on device")))
        with pytest.raises(InputError, match="cannot be spilled .*No space left"):
            next(walk)
    begun += [next(walk), next(walk)]
    again = Spaced("abcd", 1, 0.5, spill=tmp_path)
    again.load_state_dict(walk.state_dict())
    assert begun + list(again) == begun + list(walk) == whole
    walk = Spaced("ab", 1, 1, spill=tmp_path)
    next(walk), next(walk)
    for path in tmp_path.glob("spaced-*/*"):
        path.unlink()
    with pytest.raises(InputError, match="leave the folder of spill alone"):
        next(walk)


class Unsized(list):
    def __len__(self):
        raise NotImplementedError


def test_a_sparse_batch_is_walked_and_an_unknown_device_refused():
    batch = torch.eye(2).to_sparse(), torch.Size([2])
    taught, learnt, _ = (step.batch for step in Spaced([batch], 1, 1))
    assert type(learnt[1]) is torch.Size and str(learnt) == str(taught) == str(batch)
    with pytest.raises(InputError, match="device = 'gpu'"):
        next(Spaced([torch.ones(1)], 1, 1, device="gpu"))


@pytest.mark.parametrize("arguments, options, told", (
    ((iter("ab"), 1, 1), {}, "no length"), ((Unsized("ab"), 1, 1), {}, "no length"), ((5, 1, 1), {}, "loader = 5"),
    ((lambda: "ab", 1, 1), {"batches_per_epoch": 2}, "loader = "), (("ab", 1, 10**400), {}, "interval = 1"),
    (("", 1, 1), {}, "at least 1"), (("ab", 1, 2), {}, "interval = 2"),
    (("ab", 1, 0.4), {}, "interval = 0.4 is less than one batch"), (("ab", 1, -0.4), {}, "interval = -0.4"),
    (("ab", 1, float("nan")), {}, "nan"), (("ab", 1, 1), {"rule": "fixd"}, "fixed"),
    (("ab", 1, lambda losses: 1), {"rule": "constant"}, "leave them out"),
    (("ab", 1, -1), {"rule": "fixd"}, "fixed"), (("ab", 1.5, 1), {}, "epochs = 1.5"), (("ab", "2", 1), {}, "epochs = '2'"),
    (("ab", 0, lambda losses: 1), {}, "epochs = 0"), (("ab", 1, None), {}, "interval = None"), (("ab", 1, "1"), {}, "interval = '1'"),
    (("ab", 1, 1), {"batches_per_epoch": 2.5}, "batches_per_epoch = 2.5"), (("ab", 1, 1), {"seed": "x"}, "seed = 'x'"),
    ((types.SimpleNamespace(__iter__=None, __getitem__=len), 1, 1), {}, "loader = .* gives no batches"),
    (("ab", 1, 1), {"spill": ""}, "spill = ''"), (("ab", 1, 1), {"spill": "\0"}, "spill = .* a folder that can be written")))
def test_bad_input_is_refused_before_the_walk(arguments, options, told):
    with pytest.raises(InputError, match=told):
        Spaced(*arguments, **options)


def test_bad_answers_and_reports_are_refused():
    for answer in (None, "1", float("inf"), float("nan"), 0.1, 1e308):
        with pytest.raises(InputError, match=f"interval = {re.escape(repr(answer))}"):
            next(Spaced("ab", 1, lambda losses: answer))
    with pytest.raises(InputError, match='"student"'):
        Spaced("ab", 1, 1).report(1.0, "student")


def test_it_needs_the_standard_library_alone():
    code = ("import sys\n"
            "class Refuse:\n"
            "    def find_spec(self, name, *_):\n"
            "        if name.split('.')[0] in ('numpy', 'torch', 'pandas', 'matplotlib', 'scipy'):\n"
            "            raise ImportError(name)\n"
            "sys.meta_path.insert(0, Refuse())\n"
            "import spacedkd_lib as skd\n"
            "print(len(list(skd.Spaced('abc', 2, 1.0))))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "14\n", done.stderr
