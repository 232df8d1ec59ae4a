"""Tables of notebooks: data frames of runs, and what is computed from them. No torch here."""

from .comparisons import (audit, differences, forgetting, in_words, late_start_in_words, paired, predicts, summary,
                          times_in_words)
from .frames import KEYS, by_grade, conditions, epochs, measured, runs
from .side_by_side import absent, side_by_side

__all__ = ["KEYS", "absent", "audit", "by_grade", "conditions", "differences", "epochs", "forgetting", "in_words",
           "late_start_in_words", "measured", "paired", "predicts", "runs", "side_by_side", "summary", "times_in_words"]
