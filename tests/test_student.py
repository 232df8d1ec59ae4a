"""A student without its data."""

from dataclasses import replace

import pytest
import torch

import spacedkd_lib as skd
from spacedkd_lib.data import datasets
from spacedkd_lib.recipes import education, ie_kd, mutual, online_kd, self_kd

BASE = skd.Recipe(dataset="digits", train_images=80, model="resnet8", width=4, epochs=1, batch_size=16, lr=0.05,
                  augment="none")
VIT = replace(BASE, model="timm/deit_tiny_patch16_224", patch_size=4, width=24, depth=1, heads=2, head_init="timm")


@pytest.mark.parametrize("recipe", [
    BASE, online_kd(BASE, interval=1.0), self_kd(replace(BASE, model="resnet10")), education(BASE, (5, 5), growth="none",
                                                                                         beta=0.0),
    mutual(BASE, alpha=0.0, beta=0.0), ie_kd(BASE), online_kd(VIT)], ids=lambda r: f"{r.method} {r.model[:6]}")
def test_a_student_scores_as_its_record_says(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path))
    record, digits = skd.run(recipe), datasets.load("digits")
    monkeypatch.setattr(datasets, "load", None)
    student = skd.load_student(recipe)
    assert student(digits.test_images).argmax(1).tolist() == [*record.predicted()] and len(student.classes) == 10
    few = digits.test_images[:4]
    for same in (few / 255, few.double() / 255, few.long()):
        assert torch.allclose(student(same), student(few), atol=1e-5)
    for odd in (few[0], few.bool(), few.repeat(1, 2, 1, 1), few.numpy()):
        with pytest.raises(skd.InputError, match="no batch of pictures"):
            student(odd)
    exported = torch.export.export(student, (few,)).module()
    assert torch.allclose(exported(few), student(few), atol=1e-5)
    assert torch.equal(torch.jit.trace(student, (few,))(few), student(few))
    with pytest.raises(skd.InputError, match="cannot compile a student"):
        torch.jit.script(student)


def test_a_student_in_onnx_says_the_same(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    reference = pytest.importorskip("onnx.reference")
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path))
    skd.run(BASE)
    student, few = skd.load_student(BASE), datasets.load("digits").test_images[:4]
    torch.onnx.export(student, (few,), dynamo=True, verbose=False).save(tmp_path / "student.onnx")
    (logits,) = reference.ReferenceEvaluator(str(tmp_path / "student.onnx")).run(None, {"x": few.numpy()})
    assert torch.allclose(torch.from_numpy(logits), student(few), atol=1e-5)
