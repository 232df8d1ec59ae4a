"""What the house weighs, and a picture of its rooms: this program prints the table and draws figures/rooms.png.

Lines of code are those that are neither blank, comment nor docstring.
"""

import ast
import json
import re
import subprocess
from pathlib import Path

import grimp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "spacedkd_lib"
ENGINE = ("schedule.py", "recipes", "data", "models", "methods", "training")
FLOORS = (("bench",), ("notebook",), ("report",), ("analysis",), ("lab",), ("training", "cluster"), ("methods",),
          ("models", "data"), ("store",), ("recipes",), ("schedule", "statistics"), ("errors",))  # as in pyproject.toml


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def code_lines(node: ast.AST) -> int:
    """Lines on which a statement of a function stands, without its docstring."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return len({line for part in body for n in ast.walk(part) if hasattr(n, "lineno")
                for line in range(n.lineno, n.end_lineno + 1)})


def functions() -> dict[str, int]:
    return {f"{path.relative_to(PACKAGE)}:{node.name}": code_lines(node) for path in PACKAGE.rglob("*.py")
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def method_tests() -> list[str]:
    """Where a recipe's method is compared outside of methods/ and recipes/."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if not {"methods", "recipes"} & set(path.parts):
            found += [f"{path.relative_to(PACKAGE)}:{number}"
                      for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
                      if re.search(r"\.method\s*(==|!=|in\b|not in\b)", line)]
    return found


def our_imports(notebook: Path) -> int:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code")
    return len(re.findall(r"^(?:from|import) spacedkd_lib", code, re.M))


def tree_megabytes() -> float:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split("\0")
    return sum((ROOT / name).stat().st_size for name in names if name and (ROOT / name).exists()) / 1e6


def merits() -> dict[str, object]:
    paths = list(PACKAGE.rglob("*.py"))
    engine = [path for path in paths if path.relative_to(PACKAGE).parts[0] in ENGINE]
    longest, function = max(paths, key=lines), max((n, name) for name, n in functions().items())
    return {"lines of the engine": sum(map(lines, engine)), "lines of the library": sum(map(lines, paths)),
            "lines of the tests": sum(map(lines, (ROOT / "tests").rglob("*.py"))),
            "Python files directly in spacedkd_lib/": len(list(PACKAGE.glob("*.py"))),
            "longest file": f"{lines(longest)} ({longest.relative_to(PACKAGE)})",
            "longest function, lines of code": f"{function[0]} ({function[1]})",
            "functions above 40 lines of code": sum(n > 40 for n in functions().values()),
            "tests of .method outside methods/ and recipes/": len(method_tests()),
            "most import lines of ours in a notebook": max(map(our_imports, (ROOT / "notebooks").glob("*.ipynb"))),
            "tracked tree, MB": round(tree_megabytes(), 1)}


def imports() -> dict[str, set[str]]:
    """Room -> the rooms that it imports, but for those that it reaches through another one."""
    graph = grimp.build_graph("spacedkd_lib", cache_dir=None)
    room_of = {module: module.split(".")[1] for module in graph.modules if module.count(".")}
    direct = {room: {room_of[other] for module in room_of if room_of[module] == room
                     for other in graph.find_modules_directly_imported_by(module) if other in room_of} - {room}
              for room in set(room_of.values())}
    reached: dict[str, set[str]] = {}
    for room in [room for floor in reversed(FLOORS) for room in floor]:
        reached[room] = direct[room].union(*(reached[other] for other in direct[room]))
    return {room: {other for other in direct[room] if not any(other in reached[between] for between in direct[room])}
            for room in reached}


def draw(path: Path) -> None:
    """The rooms, the highest at the top; an arrow points at what is imported. The engine is shaded."""
    where = {room: (2 * x - len(floor) + 1, -y) for y, floor in enumerate(FLOORS) for x, room in enumerate(floor)}
    fig, ax = plt.subplots(figsize=(5, 7))
    for room, others in sorted(imports().items()):
        for other in sorted(others):
            ax.annotate("", where[other], where[room], arrowprops=dict(arrowstyle="->", color="#777777", shrinkA=16,
                                                                       shrinkB=16))
    for room, (x, y) in where.items():
        files = [p for p in PACKAGE.rglob("*.py") if p.relative_to(PACKAGE).parts[0].removesuffix(".py") == room]
        shade = "#dbe9f6" if {room, f"{room}.py"} & set(ENGINE) else "white"
        ax.text(x, y, f"{room}\n{sum(map(lines, files)):,} lines", ha="center", va="center", fontsize=8,
                bbox=dict(boxstyle="round", facecolor=shade))
    ax.set_xlim(-2, 2)
    ax.set_ylim(-len(FLOORS) + 0.4, 0.6)
    ax.axis("off")
    fig.savefig(path, dpi=120, bbox_inches="tight", metadata={"Software": None})


if __name__ == "__main__":
    for name, value in merits().items():
        print(f"{name:50} {value}")
    draw(ROOT / "figures" / "rooms.png")
