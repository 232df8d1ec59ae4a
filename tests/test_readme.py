"""The README keeps its word: links, commands, code and numbers."""

import re
from pathlib import Path
from types import SimpleNamespace

from test_layers import LAYERS

from spacedkd_lib import records, study, tables

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(targets) > 8
    for target in targets:
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_commands_exist():
    rules = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", README, re.M)) <= rules
    assert set(re.findall(r"PROFILE=([a-z0-9-]+)", README)) <= set(study.PROFILES)
    assert all(f"| `{name}` |" in README for name in study.PROFILES)


def test_code_runs(monkeypatch):
    walked = []
    names = {"loader": [(1, "a"), (2, "b")], "teacher_step": lambda x, y: walked.append(("teach", y)),
             "student_step": lambda x, y: walked.append(("learn", y))}
    ran = SimpleNamespace(summary={"test_accuracy": 0.0}, provenance={"data_sha256": ""})
    monkeypatch.setattr(study, "run", lambda recipe: ran if recipe.interval == 1.5 else None)
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, names)
    assert walked[:5] == [("teach", "a"), ("teach", "b"), ("teach", "a"), ("learn", "a"), ("learn", "b")]
    assert names["released"].soft_loss == "probability_kl"


def test_results_are_those_of_the_published_records():
    between = README.split(tables.START)[1].split(tables.END)[0].strip()
    assert between == tables.readme_block(tables.published_profiles()).strip()
    assert records.read_published("quick")


def test_layers_are_those_of_the_test():
    rows = re.findall(r"^\| (\d) \| (.+?) \|", README, re.M)
    told = {name.strip("/"): int(layer) for layer, names in rows for name in re.findall(r"`([\w/]+)`", names)}
    assert told == {name: layer for name, layer in LAYERS.items() if name != "__main__"}
