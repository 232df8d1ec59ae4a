"""Published measures of runs: results/<profile>/measures.npz, as analysis/measures.py writes it. No torch here."""

from __future__ import annotations

import numpy as np

from ..errors import reading
from . import records

PUBLISHED = "measures.npz"


def read_published(profile: str) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """(run id, measure) -> values of a profile's published measures; empty if there are none.

    Raises:
        InputError: the file is damaged.
    """
    found: dict[tuple[str, str], dict[str, np.ndarray]] = {}
    path = records.published_file(profile, PUBLISHED)
    if path.exists():
        with reading(path, records.RESTORE), np.load(path) as file:
            for key in (key for key in file.files if "/" in key and not key.endswith("/run_id")):
                name, k, value = key.split("/")
                for run_id, values in zip(file[f"{name}/{k}/run_id"].tolist(), file[key]):
                    found.setdefault((run_id, name), {})[value] = values
    return found
