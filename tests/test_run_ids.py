"""Run ids never change by accident: records, checkpoints and certificates are found by them."""

import json
from pathlib import Path

import pytest

from spacedkd_lib.lab import grids, profiles

IDS = json.loads((Path(__file__).parent / "fixtures/run_ids.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("profile", profiles.PROFILES)
def test_every_arm_keeps_its_run_id(profile):
    """Of the first seed, without tuned values; another seed or tuned value changes fields that are guarded too."""
    now = {}
    for row in grids.grid(profile):
        now.setdefault(f"{row.setting}: {row.arm}", row.recipe.run_id)
    assert now == IDS[profile]
