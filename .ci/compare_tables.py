"""Do the tables drawn now hold the numbers of an earlier commit? `python .ci/compare_tables.py COMMIT PROFILE ...`

Draw them first: `make report PROFILE=...` on a checkout without build/ and runs/. Every published record, and every
cell of each CSV table of that commit, is compared; status 1 if one differs or is missing.
"""

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]


def main(commit: str, profiles: list[str]) -> int:
    """Print a line a file, and how many cells differ in all."""
    faults = 0
    for profile in profiles:
        faults += compare_records(commit, profile)
        for path in git("ls-tree", "--name-only", commit, f"results/{profile}/tables/").decode().split():
            if path.endswith(".csv"):
                faults += compare_tables(path, read(git("show", f"{commit}:{path}")), built(path))
    print(f"{faults} differences.")
    return int(faults > 0)


def compare_records(commit: str, profile: str) -> int:
    """How many of an earlier commit's records are no longer there as they were."""
    names = git("ls-tree", "--name-only", commit, f"results/{profile}/").decode().split()
    path = next(name for name in names if "records.jsonl" in name)
    before = numbers(git("show", f"{commit}:{path}"))
    now = numbers((ROOT / f"results/{profile}/records.jsonl.gz").read_bytes())
    print(f"results/{profile}: {len(before & now)} of {len(before)} records are the same")
    return len(before - now)


def numbers(content: bytes) -> set[str]:
    """The records of a file, without their recipes, which later versions write with more fields."""
    text = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    kept = ("run_id", "epochs", "summary", "provenance")
    return {json.dumps({key: json.loads(line)[key] for key in kept}) for line in text.splitlines()}


def compare_tables(path: str, before: pd.DataFrame, now: pd.DataFrame | None) -> int:
    """How many cells differ; all, if the table has other rows or columns, or is not there."""
    if now is None or before.shape != now.shape or list(before) != list(now):
        print(f"{path}: {'not drawn' if now is None else f'{before.shape} became {now.shape}'}")
        return before.size
    different = before.ne(now)
    for row, column in list(zip(*different.to_numpy().nonzero()))[:3]:
        print(f"{path}, row {row}, {before.columns[column]}: {before.iat[row, column]} became {now.iat[row, column]}")
    print(f"{path}: {before.size} cells, {int(different.to_numpy().sum())} differ")
    return int(different.to_numpy().sum())


def built(path: str) -> pd.DataFrame | None:
    profile, _, name = path.split("/")[1:]
    drawn = ROOT / "build" / profile / "tables" / name
    return read(drawn.read_bytes()) if drawn.exists() else None


def read(content: bytes) -> pd.DataFrame:
    """Every cell as text, so that a digit counts; but not what the clock says."""
    return pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False).drop(columns="seconds", errors="ignore")


def git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
