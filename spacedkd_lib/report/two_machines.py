"""Comparison of one machine's numbers with the published ones. No torch here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Iterable

import pandas as pd

from ..lab import grids
from ..recipes import Recipe
from ..statistics import Interval, mean_interval
from ..store.identity import code_of
from ..store.records import Record
from .comparisons import REFERENCE
from .text import hardware_and_versions, markdown


def comparison_table(rows: list[grids.Row], local: dict[str, Record], published: dict[str, Record]) -> pd.DataFrame:
    """Compare this machine's numbers with the published ones: a line for each setting and arm.

    "bit for bit": every epoch of every local run equals the published one. All published seeds count, however few
    are run here. The other words are told by `comparison_page`.
    """
    references = {(r.notebook, r.setting): _seedless(r.recipe) for r in rows if r.arm == REFERENCE}
    groups: dict[tuple, list[str]] = {}  # a run that several notebooks need is one line
    for row in rows:
        groups.setdefault((row.setting, row.arm, _seedless(row.recipe)), []).append(row.notebook)
    here, there = _by_seed(local.values()), _by_seed(published.values())
    lines = []
    for (setting, arm, key), notebooks in groups.items():
        reference = references.get((notebooks[0], setting), key)
        lines.append({"Notebooks": " ".join(dict.fromkeys(name[:2] for name in notebooks)),
                      "Setting": setting, "Arm": arm, "Here (%)": _accuracy(here.get(key)),
                      "Published (%)": _accuracy(there.get(key)),
                      "Agreement": _agreement(here, there, key, reference)})
    return pd.DataFrame(lines)


def certificate(local: dict[str, Record], published: dict[str, Record]) -> str:
    """Say how many of the published runs this machine repeated to the last bit, and what excuses the others."""
    both = sorted(local.keys() & published.keys())
    hashes = [{run: _bits(found[run]) for run in both} for found in (local, published)]
    equal = [run for run in both if hashes[0][run] == hashes[1][run]]
    digest = hashlib.sha256("".join(hashes[0][run] for run in both).encode()).hexdigest()
    other = sum(record.provenance.get("code_sha256") != code_of([record.recipe]) for record in published.values())
    said = (f"{len(equal)} of {len(published)} records equal the published ones, hash by hash: the numbers of every "
            f"epoch and the final weights. SHA-256 of the hashes here: {digest}. Made by other code than today's: "
            f"{other} of the published.")
    if len(equal) == len(both):
        return said
    torches = [{found[run].provenance["torch"] for run in both} for found in (local, published)]
    if torches[0] != torches[1]:
        said += (f" Bits are promised for one version of torch, which is {', '.join(sorted(torches[0]))} here and "
                 f"{', '.join(sorted(torches[1]))} there.")
    if inexact := sum(not found[run].provenance.get("exact") for found in (local, published) for run in both):
        said += f" {inexact} of these records, here and there, were made without the caps of exact.py."
    return said + " The tables compare the numbers instead."


def _bits(record: Record) -> str:
    """Hash what equal runs have in common: numbers without times, and weights."""
    numbers = json.dumps([record.numbers(), record.provenance.get("weights_sha256")], sort_keys=True)
    return hashlib.sha256(numbers.encode()).hexdigest()


def comparison_page(rows: list[grids.Row], local: dict[str, Record], published: dict[str, Record]) -> str:
    """Render the `certificate`, and what `comparison_table` finds, as a page in Markdown."""
    both = sorted(local.keys() & published.keys())
    here, there = (hardware_and_versions(found[run].provenance for run in both) for found in (local, published))
    return (f"# Numbers of two machines\n\n{certificate(local, published)}\n\nHere: {here}.\nPublished: {there}.\n\n"
            '"Within the interval": the mean paired difference to the baseline (its mean where it is one, or its '
            'notebook has none) lies in the published 95% t interval; "differs": it does not, which independent runs '
            f"do by chance in one line of eight at n = 5.\n\n{markdown(comparison_table(rows, local, published))}")


def _seedless(recipe: Recipe) -> str:
    return replace(recipe, seed=0).run_id


def _by_seed(found: Iterable[Record]) -> dict[str, dict[int, Record]]:
    """Recipe but for its seed -> seed -> record."""
    by_recipe: dict[str, dict[int, Record]] = {}
    for record in found:
        by_recipe.setdefault(_seedless(record.recipe), {})[record.recipe.seed] = record
    return by_recipe


def _accuracy(by_seed: dict[int, Record] | None) -> str:
    if not by_seed:
        return ""
    i = mean_interval([record.summary["test_accuracy"] for record in by_seed.values()])
    return f"{i.mean:.2f} (n = {i.n})"


def _agreement(here: dict, there: dict, key: str, reference: str) -> str:
    mine, theirs = here.get(key, {}), there.get(key, {})
    if not mine or not theirs:
        return "not published" if mine else "not run"
    if all(seed in theirs and mine[seed].numbers() == theirs[seed].numbers() for seed in mine):
        return "bit for bit"
    new, old = _gain(here, key, reference), _gain(there, key, reference)
    if old.n < 2 or new.n < 1:
        return "too few seeds to say"
    return "within the interval" if old.low <= new.mean <= old.high else "differs"


def _gain(found: dict[str, dict[int, Record]], key: str, reference: str) -> Interval:
    """Paired difference of one recipe to another; the mean where the two are one."""
    values, base = ({seed: record.summary["test_accuracy"] for seed, record in found.get(k, {}).items()}
                    for k in (key, reference))
    both = sorted(set(values) & set(base))
    return mean_interval([values[seed] - (base[seed] if key != reference else 0) for seed in both])
