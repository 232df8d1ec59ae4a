"""One hash on every x86: the caps are in force before torch, and operations and runs have an Intel Xeon's bits."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from spacedkd_lib import recipes
from spacedkd_lib.data import datasets
from spacedkd_lib.store import exact
from spacedkd_lib.training import train

COMMITTED = json.loads((Path(__file__).parent / "fixtures" / "exact.json").read_text())
WHY_NOT = exact.why_not(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())
promised = pytest.mark.skipif(bool(WHY_NOT) or torch.__version__ != COMMITTED["torch"],
                              reason=WHY_NOT or f"the committed hashes are of torch {COMMITTED['torch']}")


def digest(*tensors):
    return hashlib.sha256(b"".join(t.detach().contiguous().numpy().tobytes() for t in tensors)).hexdigest()[:16]


@promised
def test_operations_have_the_committed_bits():
    """Made on an Intel Xeon with AMX; an AMD EPYC with AVX2 gave the same."""
    torch.manual_seed(0)
    x, w = torch.randn(32, 32, 8, 8).contiguous(memory_format=torch.channels_last), torch.randn(32, 32, 3, 3)
    a, b = torch.randn(32, 32), torch.randn(62, 32)
    here = {"convolution": digest(F.conv2d(x, w, padding=1)), "product": digest(a @ b.T),
            "small product": digest(a[:16] @ b[:10].T), "exp": digest(torch.exp(a)),
            "log_softmax": digest(torch.log_softmax(a, 1)), "sum": digest(x.sum((0, 2, 3))),
            "batch norm": digest(F.batch_norm(x, None, None, training=True)), "normal": digest(torch.randn(1000))}
    assert here == COMMITTED["operations"]


BASE = recipes.Recipe(val_fraction=0.1, model="resnet8", width=8, lr=0.1, augment="none")
BASES = {"glyphs": replace(BASE, dataset="glyphs", train_images=2232, epochs=2, batch_size=32),
         "digits": replace(BASE, dataset="digits", train_images=300, epochs=3, batch_size=16)}
ARMS = {"labels": recipes.baseline, "online": lambda base: recipes.online_kd(base, teacher_mode="eval"),
        "spaced": lambda base: recipes.online_kd(base, teacher_mode="eval", interval=1.5)}


@promised
@pytest.mark.parametrize("name", COMMITTED["runs"])
def test_runs_have_the_committed_bits(name):
    """Weights, batches, updates and evaluation of whole runs."""
    base, arm = name.split()
    recipe = ARMS[arm](BASES[base])
    _, summary, origin, weights, _ = train.train(recipe, datasets.load(recipe.dataset, seed=recipe.seed), "cpu")
    found = {"accuracy": summary["test_accuracy"], "weights": digest(*(weights[key] for key in sorted(weights)))}
    assert found == COMMITTED["runs"][name] and origin["exact"]


def python(code, **environment):
    """What a fresh interpreter prints, in which nothing is capped yet."""
    inherited = {name: value for name, value in os.environ.items() if name not in exact.CAPS}
    done = subprocess.run([sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SAY = "from spacedkd_lib.store import exact; print(exact.why_not('AVX2', 1))"


@pytest.mark.skipif(not exact.caps(), reason="no x86, or EXACT=0")
def test_what_stands_in_the_way_is_told():
    assert python(f"{SAY}; import torch; print(torch.backends.cpu.get_cpu_capability())") in ("AVX2", "DEFAULT")
    assert "import spacedkd_lib first" in python(f"import sys; sys.modules['torch'] = None; {SAY}")  # as if loaded
    assert "EXACT=0 is set" in python(SAY, EXACT="0")
    told = python(SAY, ATEN_CPU_CAPABILITY="default")
    assert "ATEN_CPU_CAPABILITY=default is set" in told
    assert "AVX2" in exact.why_not("DEFAULT", 1) and "4 threads" in exact.why_not("AVX2", 4)


TOY = recipes.baseline(recipes.Recipe(dataset="toy", model="resnet8", width=4, epochs=1, batch_size=8, val_fraction=0.0,
                                      augment="none"))


def test_a_run_outside_the_promise_says_so(toy, monkeypatch):
    assert not train.train(replace(TOY, precision="bf16"), toy, "cpu")[2]["exact"]
    monkeypatch.setattr(exact, "why_not", lambda *_: "The reason.")
    with pytest.warns(UserWarning, match="The reason."):
        assert not train.train(TOY, toy, "cpu")[2]["exact"]
