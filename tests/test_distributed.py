"""One run on two processes is the run of one process with the same global batch, but for the order of additions."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from spacedkd_lib.__main__ import main
from spacedkd_lib.errors import InputError
from spacedkd_lib.lab import running
from spacedkd_lib.recipes import Recipe, baseline, online_kd, self_kd
from spacedkd_lib.store import records
from spacedkd_lib.training import distributed, train

BASE = Recipe(dataset="digits", train_images=140, width=4, model="resnet8", epochs=2, batch_size=16, lr=0.1,
              augment="none")


BOTH = """
import sys
import torch.distributed as dist
from spacedkd_lib.__main__ import main
from spacedkd_lib.training import distributed
device, end = distributed.start(), dist.destroy_process_group
distributed.start, dist.destroy_process_group = lambda: device, lambda: None  # processes meet only once
failed = any([main(["train", path]) for path in sys.argv[1:]])
end()
sys.exit(failed)
"""


def test_two_processes_give_the_curve_of_one(tmp_path, monkeypatch):
    """Single precision; the last batch of an epoch holds 12 images. Tolerance 1e-4 of a value: seen is 1e-6."""
    recipes = [online_kd(BASE, interval=1.5), self_kd(replace(BASE, model="resnet10", epochs=1), interval=0.5)]
    files = [tmp_path / f"{recipe.method}.json" for recipe in recipes]
    for file, recipe in zip(files, recipes):
        file.write_text(recipe.to_json())
    (tmp_path / "both.py").write_text(BOTH)
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path / "two"))
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(Path(running.__file__).parents[2]))
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                           str(tmp_path / "both.py"), *map(str, files)], env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    two = [records.load(recipe) for recipe in recipes]
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path / "one"))
    for recipe, of_two in zip(recipes, two):
        assert done.stdout.count(f"Run {recipe.run_id}") == 1
        of_one = running.run(recipe)
        assert of_two.provenance["processes"] == 2 and of_one.provenance["processes"] == 1
        for a, b in zip(of_one.numbers(), of_two.numbers(), strict=True):
            assert b == pytest.approx(a, rel=1e-4, abs=1e-4)


def test_global_batch_norm_is_batch_norm_in_one_process(monkeypatch):
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda x: None)
    torch.manual_seed(0)
    ours, theirs = nn.BatchNorm2d(5), nn.BatchNorm2d(5)
    distributed.prepare(ours)
    for _ in range(3):
        x = torch.randn(8, 5, 3, 3) * 4 + 7
        grads = []
        for layer in (ours, theirs):
            z = x.clone().requires_grad_()
            layer(z).pow(3).sum().backward()
            grads.append(z.grad)
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-3)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    assert torch.equal(ours.eval()(x), ours(x)) and ours(x).shape == x.shape


@pytest.mark.parametrize("recipe, images, message", [
    (online_kd(BASE, feature_loss="batch_frobenius"), 160, "4 processes splits .*batch_frobenius"),
    (online_kd(BASE), 162, "last batch of an epoch holds 2 of 162 images, too few for 4 processes"),
    (replace(BASE, optimizer="sam"), 160, "sam"),
    (online_kd(BASE, batch_norm_parts=2), 160, "4 processes splits .* batch_norm_parts = 2"),
])
def test_what_cannot_be_split_is_refused(monkeypatch, recipe, images, message):
    monkeypatch.setattr(distributed, "processes", lambda: 4)
    with pytest.raises(InputError, match=message):
        distributed.check(recipe, images)


@pytest.mark.parametrize("model, size, layer", [("timm/levit_128s", 32, "BatchNorm1d"),
                                                ("timm/test_efficientnet", 0, "BatchNormAct2d")])
def test_batch_norms_that_would_see_one_process_are_refused(monkeypatch, toy, model, size, layer):
    recipe = Recipe(dataset="toy", model=model, image_size=size, batch_size=8, augment="none")
    train.assemble([recipe], toy, torch.device("cpu"))  # in one process they are as good as any
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    with pytest.raises(InputError, match=f"Layers of the class {layer} .* in each of 2 processes by its own rows"):
        train.assemble([recipe], toy, torch.device("cpu"))
    (run,), *_ = train.assemble([baseline(replace(BASE, dataset="toy", train_images=0))], toy, torch.device("cpu"))
    norms = {type(layer) for layer in run.method.student.modules() if isinstance(layer, nn.BatchNorm2d)}
    assert norms == {distributed.GlobalBatchNorm2d}
    distributed.prepare(run.method.student)  # twice is as once


@pytest.mark.parametrize("content, message", [("{", "is no recipe"), ("[1]", "is no recipe"),
                                              ('{"metod": "online_kd"}', 'did you mean "method"')])
def test_a_recipe_file_is_checked(tmp_path, capsys, content, message):
    (tmp_path / "recipe.json").write_text(content)
    assert main(["train", str(tmp_path / "recipe.json")]) == 2 and message in capsys.readouterr().err
