"""The rooms of the library: each imports from those below it, see the contracts in pyproject.toml."""

import subprocess
import sys
from pathlib import Path

import gauntlet
import house
import spacedkd_lib as skd

ROOT = Path(skd.__file__).parents[1]


def test_each_room_imports_from_those_below():
    done = subprocess.run([Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stdout


def test_the_linter_is_content():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "spacedkd_lib", "tests"], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_types_of_the_engine_fit(tmp_path):
    done = subprocess.run([sys.executable, "-m", "mypy", "--cache-dir", tmp_path], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_reads_records_imports_no_torch():
    modules = ("grid", "run_all", "claims", "tables", "figures", "measure_figures", "diagrams", "theory",
               "dropout_ema", "Session", "check", "DEVIATIONS")
    code = "import sys, spacedkd_lib as skd\n" + "".join(f"skd.{name}\n" for name in modules) + (
        "import spacedkd_lib.notebook.runner, spacedkd_lib.cluster.slurm\n"
        "assert not {'torch', 'torchvision', 'timm'} & set(sys.modules), 'torch was imported'")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_face_names_what_there_is():
    assert all(getattr(skd, name) is not None for name in skd.__all__) and dir(skd) == skd.__all__
    assert skd.train is skd.sweep.__globals__["train"]  # the function: the room is `training`


def test_the_house_keeps_its_measures():
    assert house.method_tests() == []  # methods are told apart in methods/ and recipes/ only
    assert max(house.functions().values()) <= 40
    assert max(map(house.lines, house.PACKAGE.rglob("*.py"))) <= 350
    assert len(list(house.PACKAGE.glob("*.py"))) <= 6
    assert {house.our_imports(path) for path in (ROOT / "notebooks").glob("*.ipynb")} == {1}


def test_the_named_faults_of_the_gauntlet_can_still_be_planted():
    for fault in gauntlet.FAULTS:
        assert (ROOT / "spacedkd_lib" / fault.file).read_text(encoding="utf-8").count(fault.right) == 1, fault.name
