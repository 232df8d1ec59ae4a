"""A plausible wrong answer to each exercise, which its test must refuse."""

import copy
import math

import torch
import torch.nn.functional as F

from spacedkd_lib.notebook.answers.n10 import _unit
from spacedkd_lib.notebook.answers.n11 import _sliced_kl
from spacedkd_lib.statistics import holm


def update(net, optimizer, x, y):
    loss = F.cross_entropy(net(x).logits, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def online(total, teach, learn):
    for i in range(total):
        teach(i)
        learn(i)


def soft(student, deepest, T):
    log_p, log_q = (student / T).log_softmax(1), (deepest / T).log_softmax(1)
    return (log_q.exp() * (log_q - log_p)).sum() / len(log_p)


WRONG = {
    "00.1": 1, "00.2": "spaced", "00.3": "a", "00.4": {"epochs": 3}, "00.5": (9, 9),
    "01.1": "same", "01.2": 230.4, "01.5": "a",
    "01.3": lambda order, i, B: order(i // 3)[i % 3 * B:(i % 3 + 1) * B],
    "01.4": lambda i: torch.randperm(10, generator=torch.Generator().manual_seed(i))[:3],
    "02.1": "a", "02.2": 3.1, "02.4": update, "02.5": "a",
    "02.3": lambda i, total: 0.1 * 0.2 ** sum(10 * i > tenths * total for tenths in (3, 6, 8)),
    "03.1": 0.115, "03.2": "equally", "03.3": online, "03.5": "a",
    "03.4": lambda x: torch.cat([x[:1], x[1:].flip(0)]),
    "04.1": {"shallow exits"}, "04.2": 2 * 80 * 391, "04.5": "d",
    "04.3": lambda logits, T: sum(soft(exit, deeper, T) for deeper, exit in zip(logits, logits[1:])),
    "04.4": lambda student, deepest, T: soft(student, deepest.detach(), T),
    "05.1": ("-", "-"), "05.2": 586, "05.5": "a",
    "05.3": lambda total, lead: [(turn, i) for start in range(0, total, lead) for turn in ("teach", "learn")
                                 for i in range(start, min(start + lead, total))],
    "05.4": lambda optimizer, loss: (optimizer.zero_grad(), loss.backward(), optimizer.step()),
    "06.1": "same", "06.2": 1.0, "06.4": [[4.0, 0.0], [0.0, 1.0]], "06.5": "a",
    "06.3": lambda product, w, v: product(w * v),
    "07.1": "always lower", "07.2": 50, "07.4": [(0.9, False)] * 10, "07.5": "a",
    "07.3": lambda pixels, slopes, r: [min(max(x + r * ((g > 0) - (g < 0)), 0.0), 1.0) for x, g in zip(pixels, slopes)],
    "08.1": "lower", "08.2": 0.5, "08.4": (2, -2, 4), "08.5": "a",
    "08.3": lambda blocks, s: [(kind, i) for i in range(blocks * s) for kind in ("learn", "teach")],
    "09.1": "a", "09.2": 0.0, "09.3": ([0.0, 0.0], [1.0, 0.0]), "09.5": "a",
    "09.4": lambda student, teacher, T: F.kl_div((student / T).softmax(1), (teacher / T).softmax(1),
                                                 reduction="batchmean"),
    "10.1": "same", "10.2": "a", "10.3": 125, "10.5": lambda net, x: net.eval()(x).logits,
    "10.4": lambda mine, theirs, p: sum(abs(a - b) ** p for a, b in zip(_unit(mine), _unit(theirs))) / len(mine),
    "11.1": "higher", "11.2": "b", "11.4": [1.0, 0.0, 0.5], "11.5": 36 / 62,
    "11.3": lambda student, teacher, group, T: _sliced_kl(student, teacher, group, 1.0),
    "12.1": "a", "12.2": 197, "12.4": lambda network: 0.0, "12.5": "c",
    "12.3": lambda q, k, v: (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1).tril() @ v,
    "13.1": "equally far", "13.2": 0.3 * 2 / math.pi, "13.4": copy.deepcopy, "13.5": "a",
    "13.3": lambda t, p, S, L, tests: p * abs(math.sin(math.pi * t / S)),
    "14.1": "a", "14.2": [0.06, 0.033, 0.9], "14.3": "a", "14.4": holm, "14.5": lambda studies: 0,
}
