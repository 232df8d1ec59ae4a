"""Spaced Knowledge Distillation: what backs the numbered notebooks, and what to build on.

    import spacedkd_lib as skd
    record = skd.run(skd.spaced(skd.online_kd(skd.Recipe(dataset="digits", model="resnet8")), interval=1.5))

Names below are imported when they are first used, so that code that only reads records never pays for torch.
"""

import importlib

from .errors import not_installed
from .store import exact, places

__version__ = "0.1.0"

# module -> the names of it that stand here; "": the module itself
_FACE = {
    "errors": "InputError",
    "recipes": "DEVIATIONS Recipe baseline behind describe deviations_of education ema grade_lengths ie_kd mutual "
               "offline offline_kd online_kd partition past_self preset released_dropout self_kd set_deviation "
               "spaced teacher_of transformer",
    "recipes.plugins": "register_augmentation register_loss register_method register_network register_rule",
    "schedule": "Course Event counts leads lockstep spaced_schedule",
    "spacing": "Spaced",
    "statistics": "mean_interval paired_by_seed",
    "store.stopping": "Stopped",
    "data.batches": "Batches",
    "data.datasets": "register_dataset",
    "models.resnet": "MultiExitResNet ResNet",
    "models.layers": "macs parameters",
    "models.transformers": "Vision",
    "models.scoring": "eval_mode scores",
    "models.weights": "keep_weights",
    "methods.base": "Method",
    "methods.build": "make recipe_schedule",
    "methods.baseline": "Baseline",
    "methods.online_kd": "OnlineKD ask batch_statistics",
    "methods.self_kd": "SelfKD",
    "methods.ie_kd": "FactorTransfer MapLoss last_map",
    "methods.education": "Education GrowingResNet",
    "training.train": "assemble sweep train",
    "training.loop": "walk",
    "training.run": "Run",
    "training.student": "load_student",
    "training.rates": "Clock learning_rate",
    "training.optimizers": "optimizer_of zero_gradients",
    "lab.profiles": "PROFILES profile",
    "lab.grids": "grid unique",
    "lab.running": "run run_all",
    "lab.arms": "CONTROLS CONTROL_INTERVAL",
    "lab.judging": "judge",
    "analysis.trained": "Trained",
    "analysis.theory": "Regression",
    "notebook.session": "Session display_figure say show show_results slider",
    "notebook.exercises": "check hint progress",
}
_MODULES = {path.rpartition(".")[2]: path for path in (
    "schedule", "statistics", "data.augment", "data.batches", "data.datasets", "data.embedded", "data.rand_augment",
    "methods.dropout_ema", "methods.losses", "store.records", "store.software", "lab.claims", "lab.tuning",
    "analysis.adamw_idle", "analysis.attacks", "analysis.corruptions", "analysis.curvature", "analysis.landscape",
    "analysis.measures", "analysis.robustness", "analysis.theory", "report.diagrams", "report.figures",
    "report.measure_figures", "report.tables")}
_NAMES = {name: module for module, names in _FACE.items() for name in names.split()}
__all__ = sorted([*_NAMES, *_MODULES])


def __getattr__(name: str):
    if name not in _MODULES and name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f".{_MODULES.get(name) or _NAMES[name]}", __name__)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(not_installed(name, error), name=error.name) from None
    return module if name in _MODULES else getattr(module, name)


def __dir__() -> list[str]:
    return __all__


exact.cap()
for _folder in places.FOLDERS:
    places.named(_folder)
