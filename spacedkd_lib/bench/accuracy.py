"""Accuracy of training in bf16 against fp32, paired by seed, with the runs' ids."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from ..lab import profiles, running
from ..recipes import baseline, online_kd, spaced
from ..statistics import paired_interval


def accuracy(profile: str, seeds: int, workers: int) -> tuple[pd.DataFrame, dict]:
    """Test accuracy in bf16 minus that in fp32, paired by seed, on a profile's first setting; trains what is missing.

    Returns:
        The table, a line an arm; and {"runs": a line a run}.
    """
    base = profiles.profile(profile).settings[0].base
    arms = {"baseline": baseline(base), "spaced KD s=1.5": spaced(online_kd(base), 1.5)}
    runs = [(arm, seed, precision, replace(recipe, seed=seed, precision=precision))
            for arm, recipe in arms.items() for seed in range(seeds) for precision in ("fp32", "bf16")]
    found = {record.run_id: record for record in running.run_all([recipe for *_, recipe in runs], workers)}
    frame = pd.DataFrame([{"arm": arm, "seed": seed, "precision": precision, "run_id": recipe.run_id,
                           "test_accuracy": found[recipe.run_id].summary["test_accuracy"]}
                          for arm, seed, precision, recipe in runs])
    lines = []
    for arm, part in frame.groupby("arm", sort=False):
        by = part.pivot(index="seed", columns="precision", values="test_accuracy")
        i = paired_interval(by["bf16"], by["fp32"])
        lines.append({"Data": base.dataset, "Arm": arm, "n": i.n, "fp32 (%)": by["fp32"].mean(),
                      "bf16 (%)": by["bf16"].mean(), "Difference (points)": i.mean, "95% t, low": i.low,
                      "95% t, high": i.high, "p": i.p})
    return pd.DataFrame(lines), {"runs": frame.to_dict("records")}
