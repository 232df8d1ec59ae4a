"""Tables as people read them: formatted cells, Markdown, CSV; and hardware and versions in words. No torch here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Iterable

import pandas as pd

from ..store import records

ACCURACY, SD = "Test accuracy (%)", "sd"


def formatted(table: pd.DataFrame) -> pd.DataFrame:
    """Format a table as text; empty for NaN. What is text already comes back as it is.

    "71.20 ± 0.74" is a mean with its sd over seeds, "+1.54 [0.80, 2.28]" a paired difference and its interval.
    """
    shown, consumed = {}, set()
    interval = "corrected" if "Level (%)" in table else "95% t"
    for name in table:
        stem = name.removesuffix(" (points)")
        if name == ACCURACY and SD in table:
            consumed.add(SD)
            shown[f"{name} ± sd"] = [f"{mean:.2f}" + (f" ± {sd:.2f}" if sd == sd else "")
                                     for mean, sd in zip(table[name], table[SD])]
        elif f"{stem}: low" in table:
            parts = [f"{stem}: low", f"{stem}: high", f"{stem}: pairs"]
            consumed.update(parts)
            columns = [table.get(part, table["n"]) for part in (name, *parts, "n")]
            shown[f"{stem} [{interval}]"] = [difference_in_words(*cells) for cells in zip(*columns)]
        elif name not in consumed:
            shown[name] = [_chance(value) if name.startswith("p (") else _text(value) for value in table[name]]
    return pd.DataFrame(shown, index=table.index, dtype=object)


def _chance(p: float | str) -> str:
    return p if isinstance(p, str) else "" if p != p else "<0.001" if p < 0.001 else f"{p:.3f}"


def _text(value) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"
    return f"{value:,}" if type(value) is int else "" if value is None else str(value)


def _points(x: float, sign: str = "") -> str:
    return f"{round(x, 2) + 0.0:{sign}.2f}"  # adding zero turns -0.00 into 0.00


def difference_in_words(mean: float, low: float, high: float, pairs: int, n: int) -> str:
    """Format a difference with its interval; the number of pairs if it is not n."""
    if pairs < 2:
        return f"{_points(mean, '+')} (one pair)" if pairs else ""
    return f"{_points(mean, '+')} [{_points(low)}, {_points(high)}]" + f" ({pairs} pairs)" * (pairs != n)


def write(table: pd.DataFrame, path: Path) -> None:
    """Keep a table as CSV, with every digit.

    Raises:
        InputError: the folder cannot be written to.
    """
    records.write_atomically(path, table.to_csv(index=False, lineterminator="\n"))


def markdown(table: pd.DataFrame) -> str:
    """Render a table in GitHub's Markdown, columns padded so that its source is legible too."""
    shown = formatted(table)
    numeric = [all(re.match(r"[-+]?\d|$", cell) for cell in shown[name]) for name in shown]
    lines = [list(shown.columns), *shown.values.tolist()]
    lines = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    widths = [max(3, *map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * (w - 1) + ":" if right else "-" * w for w, right in zip(widths, numeric)])
    padded = ([cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(line, widths, numeric)]
              for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in padded)


def hardware_and_versions(provenance: Iterable[dict]) -> str:
    """Hardware, versions and commit of some records, every distinct one of each."""
    of = list(provenance)

    def each(say) -> str:
        return ", ".join(dict.fromkeys(map(say, of)))
    hardware = each(lambda p: p["device_name"] + f" (TF32: {p.get('tf32')}; updates: {p.get('engine')})"
                    if p["device"] == "cuda" else f"{p['cpu']}, {p['threads']} thread a run")
    changed = {True: " with changes", False: "", None: " (changes unknown)"}
    commit = each(lambda p: p["git_commit"][:8] + changed[p["git_dirty"]] if p["git_commit"] else "unknown")
    return f"{hardware}; torch {each(lambda p: p['torch'])}, Python {each(lambda p: p['python'])}; commit {commit}"
