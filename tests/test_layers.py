"""The layers of the library: imports point to lower layers only."""

import ast
import subprocess
import sys
from pathlib import Path

import spacedkd_lib

PACKAGE = Path(spacedkd_lib.__file__).parent
LAYERS = {  # a module may import from layers below its own, and recipes.py from anywhere
    "recipes": 0, "schedule": 0, "embedded": 0, "stopping": 0, "augment": 0, "exact": 0,
    "deviations": 1, "statistics": 1, "strong": 1, "models": 1, "losses": 1, "records": 1, "executors": 1,
    "distributed": 1, "slurm": 1, "theory": 1, "beyond": 1,
    "other_deviations": 2, "transformer_deviations": 2, "beyond_deviations": 2, "data": 2, "batches": 2, "evaluate": 2,
    "checkpoints": 2, "vits": 2, "graphs": 2, "tuning": 2,
    "arms": 3, "distillers": 3, "robustness": 3, "landscape": 3, "lessons": 3, "stacked": 3, "curvature": 4,
    "train": 4,
    "study": 5, "claims": 5, "idle": 5,
    "tables": 6, "figures": 6, "measures": 6, "measure_figures": 7, "diagrams": 7,
    "runner": 7, "notebook": 7, "exercises": 7,
    "bench": 8, "__main__": 8,
}
WITHOUT_TORCH = ("recipes", "schedule", "records", "statistics", "study", "tables", "figures", "measure_figures",
                 "diagrams", "notebook", "runner", "slurm", "executors", "exercises", "deviations", "other_deviations",
                 "transformer_deviations", "claims", "theory", "beyond", "beyond_deviations", "exact", "tuning")


def _module(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path):
    """Names of the project's modules that a file imports, at whatever depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("spacedkd_lib")):
            module = (node.module or "").removeprefix("spacedkd_lib").lstrip(".")
            inside = node.level == 1 and path.parent != PACKAGE  # a sibling within distillers/
            if inside:
                yield "distillers"
            else:
                yield from [module.split(".")[0]] if module else [a.name for a in node.names if a.name != "__version__"]


def test_every_module_has_a_layer_and_imports_lower_ones():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = _module(path)
        if name == "__init__":
            continue
        assert name in LAYERS, f"{name} has no layer: add it to the table and to the README"
        for other in _imports(path):
            lower = LAYERS[other] < LAYERS[name] or other in (name, "recipes")
            assert lower, f"{name} (layer {LAYERS[name]}) imports {other} (layer {LAYERS[other]})"


def test_modules_that_read_records_import_no_torch():
    code = "import sys\n" + "".join(f"import spacedkd_lib.{name}\n" for name in WITHOUT_TORCH) + (
        "assert not {'torch', 'torchvision', 'timm'} & set(sys.modules), 'torch was imported'")
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
