"""What git tracks: small enough to be carried to a GPU machine, and no picture that nothing shows."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST = 25_000_000  # bytes


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [Path(name) for name in done.stdout.split("\0") if name and (ROOT / name).exists()]


def test_the_tree_stays_light():
    sizes = {path: (ROOT / path).stat().st_size for path in tracked()}
    largest = sorted(sizes, key=sizes.get, reverse=True)[:10]
    told = ", ".join(f"{path} {sizes[path] / 1e6:.1f} MB" for path in largest)
    assert sum(sizes.values()) < MOST, f"{sum(sizes.values()) / 1e6:.1f} MB are tracked; the largest: {told}"


def test_figures_are_those_that_a_page_shows():
    pages = [*(ROOT / place for place in ("README.md", "results/README.md", "spacedkd_lib/README.md", "spacedkd_lib/MANUAL.md")),
             *(ROOT / "notebooks").glob("*.ipynb")]
    shown = set(re.findall(r"figures/[\w/-]+\.png", "".join(page.read_text(encoding="utf-8") for page in pages)))
    assert {path.as_posix() for path in tracked() if path.parts[0] == "figures"} == shown
