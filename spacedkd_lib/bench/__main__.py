"""`python -m spacedkd_lib.bench`: the engine beside the plain way of writing the same training, as ratios.

Writes results/bench/<processor>/; a GPU has gpu.py. `--quick` does it on tiny networks, into the folder of profile
smoke, which git ignores: it shows that the benchmark works, and nothing about speed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from dataclasses import asdict

import pandas as pd
import torch

from ..errors import InputError
from ..report import text as words
from ..store import records, software
from .analysis import analysis_cases
from .memory import memory
from .speed import compared, speed_cases
from .work import FULL, QUICK


def provenance() -> dict:
    return software.describe() | {"device": "cpu", "device_name": torch.backends.cpu.get_cpu_capability(),
                                    "threads": torch.get_num_threads(), "load": os.getloadavg(),
                                    "finished": records.now()}


def keep(name: str, where: str, table: pd.DataFrame, raw: dict, origin: dict, note: str) -> None:
    """Print a table, and keep it as results/<where>/<name>.csv and .json.

    The first has every digit, the second is its record: all repeats, sizes, provenance.
    """
    stem = records.ROOT / "results" / where / name
    text = f"{words.markdown(table)}\n{note} {words.hardware_and_versions([origin])}; {origin['finished'][:10]}.\n"
    words.write(table, stem.with_suffix(".csv"))
    records.write_atomically(stem.with_suffix(".json"), json.dumps({"provenance": origin, **raw}, indent=1) + "\n")
    print(f"\n{text}", flush=True)


NOTES = {
    "speed": "Medians, sides taking turns in one process; processor time. bf16 on batches of 4, if so: the processor "
             "has no bf16 instructions, and torch imitates them.",
    "memory": "The data set, held as bytes by both, is not counted; tensors are counted by their storages.",
    "analysis": "Medians, sides taking turns in one process; processor time.",
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m spacedkd_lib.bench", description="Speed and memory, as tables.")
    parser.add_argument("--quick", action="store_true", help="tiny: whether it works, not how fast")
    size = QUICK if parser.parse_args(arguments).quick else FULL
    torch.set_num_threads(1)
    parts = {"speed": lambda: compared(speed_cases(size)), "memory": lambda: memory(size),
             "analysis": lambda: compared(analysis_cases(size))}
    try:
        for name, part in parts.items():
            origin = provenance()
            device = re.sub("[^a-z0-9]+", "-", origin["device_name"].lower())  # such as "avx2", "avx512"
            table, raw = part()
            raw = {"size": asdict(size), "load_after": os.getloadavg(), **raw}
            keep(name, f"{size.folder}/{device}", table, raw, origin, NOTES[name])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
