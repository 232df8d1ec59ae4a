"""The READMEs (of the package, of its results, of the library) keep their word: links, commands, code and numbers."""

import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import torch

import spacedkd_lib as skd
from spacedkd_lib import recipes
from spacedkd_lib.lab import profiles, running
from spacedkd_lib.report import frames, readme

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS, LIBRARY, MANUAL = ((ROOT / place).read_text(encoding="utf-8") for place in (
    "README.md", "results/README.md", "spacedkd_lib/README.md", "spacedkd_lib/MANUAL.md"))


def test_links_lead_somewhere():
    for place, text in (("", README), ("results", RESULTS), ("spacedkd_lib", LIBRARY), ("spacedkd_lib", MANUAL)):
        targets = re.findall(r"\]\(([^)#]+)\)", text)
        assert targets
        for target in targets:
            assert target.startswith("http") or (ROOT / place / target).exists(), target


def test_commands_exist():
    rules = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in (README, RESULTS, LIBRARY, MANUAL):
        assert set(re.findall(r"(?:`|^)make ([a-z]+)", page, re.M)) <= rules
        assert set(re.findall(r"PROFILE=([a-z0-9-]+)", page)) <= set(profiles.PROFILES)
    assert all(f"| `{name}` |" in MANUAL for name in profiles.PROFILES)


def test_code_runs(monkeypatch, tmp_path):
    walked = []
    tiny = recipes.Recipe(dataset="digits", train_images=60, epochs=1, batch_size=16, model="resnet8", width=4)
    names = {"skd": skd, "loader": [(1, "a"), (2, "b")], "teacher_step": lambda x, y: walked.append(("teach", y)),
             "student_step": lambda x, y: walked.append(("learn", y))}
    ran = SimpleNamespace(summary={"test_accuracy": 0.0}, provenance={"data_sha256": ""})
    monkeypatch.setattr(running, "run", lambda recipe: ran if recipe.interval == 1.5 else None)
    blocks = re.findall(r"```python\n(.*?)```", README + LIBRARY + MANUAL, re.S)
    assert len(blocks) == 6
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(block.replace("(20, 40)", "(1,)"), names | {"recipe": tiny} if "walk" in block else names)
    assert "student.head.bias" in torch.load("epoch-1.pt")
    assert walked[:5] == [("teach", "a"), ("teach", "b"), ("teach", "a"), ("learn", "a"), ("learn", "b")]
    assert names["released"].soft_loss == "probability_kl"
    assert (names["vit"].image_size, names["small"].patch_size, names["pair"].teacher_width) == (224, 4, 384)
    assert names["ie"].method == "ie_kd" and recipes.grade_lengths(names["ed"]) == (53, 53, 54)


def test_results_are_those_of_the_published_records(tuned_values):
    for text, block in ((README, readme.readme_block), (RESULTS, readme.results_block)):
        between = text.split(readme.START)[1].split(readme.END)[0].strip()
        assert between == block(frames.published_profiles()).strip()


def test_speed_and_memory_are_those_of_the_last_benchmark():
    told = MANUAL.split("## Speed and memory")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in row.split("|")[2:4]] for row in re.findall(r"^\|.*\|$", told, re.M)[2:]]
    for cells, processor in zip(zip(*rows, strict=True), ("avx2", "avx512"), strict=True):
        measured = pd.concat(pd.read_csv(ROOT / "results" / "bench" / processor / f"{name}.csv")["Times faster"]
                             for name in ("speed", "analysis"))
        for cell in filter(None, cells):
            assert cell in {f"{value:.{len(cell.split('.')[1])}f}" for value in measured}, (processor, cell)
    plain, ours = pd.read_csv(ROOT / "results" / "bench" / "avx2" / "memory.csv")["Tensors held (MB)"]
    assert f"{ours:.1f} MB" in told and f"{plain:.0f} MB" in told
