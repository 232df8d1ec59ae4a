"""The READMEs (of the package, of its results, of the library) keep their word: links, commands, code and numbers."""

import importlib.util
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import torch

import spacedkd_lib as skd
from spacedkd_lib import recipes
from spacedkd_lib.lab import profiles, running
from spacedkd_lib.recipes import plugins
from spacedkd_lib.report import frames, readme

ROOT = Path(__file__).resolve().parent.parent
README, RESULTS, LIBRARY, MANUAL, CONTRIBUTING = ((ROOT / place).read_text(encoding="utf-8") for place in (
    "README.md", "results/README.md", "spacedkd_lib/README.md", "spacedkd_lib/MANUAL.md", "CONTRIBUTING.md"))
PAGES = (("", README), ("results", RESULTS), ("spacedkd_lib", LIBRARY), ("spacedkd_lib", MANUAL), ("", CONTRIBUTING))


def test_links_lead_somewhere():
    for place, text in PAGES:
        targets = re.findall(r"\]\(([^)#]+)\)", text)
        assert targets
        for target in targets:
            assert target.startswith("http") or (ROOT / place / target).exists(), target


def test_commands_exist():
    rules = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for _, page in PAGES:
        assert set(re.findall(r"(?:`|^)make ([a-z]+)", page, re.M)) <= rules
        assert set(re.findall(r"PROFILE=([a-z0-9-]+)", page)) <= set(profiles.PROFILES)
    assert all(f"| `{name}` |" in MANUAL for name in profiles.PROFILES)


def code(page):
    return re.findall(r"```python\n(.*?)```", page, re.S)


def test_code_runs(monkeypatch, tmp_path):
    walked = []
    tiny = recipes.Recipe(dataset="digits", train_images=60, epochs=1, batch_size=16, model="resnet8", width=4)
    names = {"skd": skd, "loader": [(1, "a"), (2, "b")], "teacher_step": lambda x, y: walked.append(("teach", y)),
             "student_step": lambda x, y: walked.append(("learn", y))}
    ran = SimpleNamespace(summary={"test_accuracy": 0.0}, provenance={"data_sha256": ""})
    monkeypatch.setattr(running, "run", lambda recipe: ran if recipe.interval == 1.5 else None)
    blocks = [block for block in code(README + LIBRARY + MANUAL) if "run_all" not in block]
    assert len(blocks) == 6
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(block.replace("(20, 40)", "(1,)"), names | {"recipe": tiny} if "walk" in block else names)
    assert "student.head.bias" in torch.load("epoch-1.pt")
    assert walked[:5] == [("teach", "a"), ("teach", "b"), ("teach", "a"), ("learn", "a"), ("learn", "b")]
    assert names["released"].soft_loss == "probability_kl"
    assert (names["vit"].image_size, names["small"].patch_size, names["pair"].teacher_width) == (224, 4, 384)
    assert names["ie"].method == "ie_kd" and recipes.grade_lengths(names["ed"]) == (53, 53, 54)


def test_the_shortest_path_to_parts_of_ones_own_works(monkeypatch, tmp_path):
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path))
    monkeypatch.setattr(plugins, "_registered", {})
    monkeypatch.setattr(skd.schedule, "LENGTHS", dict(skd.schedule.LENGTHS))
    block, = code(CONTRIBUTING)
    exec(block, names := {"__name__": "mine"})
    assert {name.rpartition(" ")[0] for name in names["record"].provenance["plugins"]} == {
        "loss", "rule", "network", "method", "data set"}


class Writer:
    """Has of TensorBoard's SummaryWriter what the manual uses."""

    def __init__(self, folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.file = (Path(folder) / "events").open("a")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def add_scalar(self, name, value, step):
        self.file.write(f"{name} {float(value)} {step}\n")


def test_tensorboard_is_told(monkeypatch, tmp_path):
    if importlib.util.find_spec("tensorboard") is None:
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    tiny = recipes.Recipe(dataset="digits", train_images=60, epochs=2, batch_size=16, model="resnet8", width=4)
    block, = (block for block in code(MANUAL) if "run_all" in block)
    exec(block.replace("run_all(recipes,", "run_all(recipes, workers=1,"), {"skd": skd, "recipes": [tiny]})
    told = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard" / tiny.run_id).iterdir())
    assert b"test_accuracy" in told and b"student_loss" in told


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
