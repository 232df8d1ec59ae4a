"""Optuna over the space interval and the learning rate, on validation pictures; bad trials are pruned."""

import dataclasses

import digits
import optuna

import spacedkd_lib as skd


def objective(trial):
    """Train one student; return its validation accuracy."""
    recipe = dataclasses.replace(digits.RECIPE, val_fraction=0.2, lr=trial.suggest_float("lr", 1e-3, 0.5, log=True),
                                 interval=trial.suggest_float("interval", 0.5, 3.0, step=0.5))
    def report(row):
        trial.report(row["val_accuracy"], row["epoch"])
        if trial.should_prune():
            raise skd.Stopped
    try:
        return skd.run(recipe, on_epoch=report).epochs[-1]["val_accuracy"]
    except skd.Stopped:
        raise optuna.TrialPruned from None


if __name__ == "__main__":
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0),
                                pruner=optuna.pruners.MedianPruner(n_startup_trials=2))
    study.optimize(objective, n_trials=6)
    print(study.best_trial)
