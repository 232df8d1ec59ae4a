"""Stands in for what train.sweep will know itself. At the merge: delete this file, and import `sweep` from ..train and
`graphs` from .. where it is imported from here."""

import inspect
from importlib.util import find_spec
from types import SimpleNamespace

from .. import train

NAMES = inspect.signature(train.sweep).parameters
if find_spec("spacedkd_lib.graphs"):
    from .. import graphs
else:
    graphs = SimpleNamespace(WARM=3)


def sweep(recipes, dataset, device=None, folder=None, on_epoch=None, engine=None):
    if len({recipe.seed for recipe in recipes}) > 1 and not find_spec("spacedkd_lib.stacked"):
        return [outcome for recipe in recipes for outcome in sweep([recipe], dataset, device, engine=engine)]
    more = {"engine": engine} if "engine" in NAMES else {}
    return train.sweep(recipes, dataset, device, folder, on_epoch, **more)
