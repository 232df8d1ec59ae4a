"""Recipes, derivations of one recipe from another, and the registry of deviations. No torch here."""

from .derive import (
    baseline, behind, distinct, education, ema, forward_passes, grade_lengths, ie_kd, mutual, offline, offline_kd,
    one_network, online_kd, partition, past_self, self_kd, short_form, spaced, teacher_of,
    teacher_shape, transformer,
)
from . import plugins
from .deviations import DEVIATIONS, Deviation, deviations_of, set_deviation, switches
from .recipe import (
    AUGMENTATIONS, METHODS, RESNETS, TRANSFORMERS, VERSION, Recipe, defaults, describe, foreign, from_dict,
    is_transformer, stochastic,
)
from .released import preset, released_dropout

__all__ = [
    "AUGMENTATIONS", "DEVIATIONS", "METHODS", "RESNETS", "TRANSFORMERS", "VERSION", "Deviation", "Recipe",
    "baseline", "behind", "defaults", "describe", "deviations_of", "distinct", "education", "ema", "foreign",
    "forward_passes", "from_dict", "grade_lengths", "ie_kd", "is_transformer", "mutual", "offline", "offline_kd",
    "one_network", "online_kd", "partition", "past_self", "plugins", "preset",
    "released_dropout", "self_kd", "set_deviation", "short_form", "spaced", "stochastic", "switches", "teacher_of",
    "teacher_shape", "transformer"]
