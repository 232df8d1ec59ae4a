"""What only notebooks need: their records, where their tables and figures go, their exercises."""

from __future__ import annotations

from collections import ChainMap
from dataclasses import dataclass
from functools import cached_property
from typing import Callable, Collection

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from ..cluster.executors import Here
from ..errors import InputError
from ..lab import grids, running
from ..lab.arms import ARMS
from ..lab.profiles import PROFILES
from ..lab.progress import watched
from ..report import figures, frames, text
from ..store import records
from ..store.stopping import Stopped


def show(table: pd.DataFrame, fold: str = "") -> None:
    """Show a table as a reader sees it: numbers formatted, differences with their intervals.

    Args:
        fold: a title; the table is then folded behind it.
    """
    shown = text.markdown(table)
    say(f"<details><summary>{fold}</summary>\n\n{shown}\n</details>" if fold else shown)


def show_results(summary: pd.DataFrame, arms: Collection[str] = ()) -> None:
    """Show the accuracies of some arms with their differences; then, folded, all arms with all that qualifies them.

    Args:
        summary: from `tables.summary`.
        arms: names of those that stand in the first table; all, if there are none.
    """
    table = text.formatted(summary)
    outcome = [name for name in table if name in ("Setting", "Arm", "n") or name.startswith(("Test accuracy", "vs "))]
    show(table.loc[table["Arm"].isin(arms) if arms else slice(None), outcome])
    show(table, fold=f"All {len(table)} arms, with updates, cost and the best epochs")


def say(sentences: str) -> None:
    """Show text that holds computed numbers, as Markdown."""
    from IPython.display import Markdown, display
    display(Markdown(sentences))


def slider(draw: Callable[..., Figure], caption: str, **ranges: tuple[float, float, float, float]) -> None:
    """Let a reader move the numbers of a figure; without a reader, show the figure for the first value of each.

    Args:
        draw: makes the figure from the numbers, given by name.
        caption: what it shows, whatever the numbers.
        ranges: name -> (value at first, lowest, highest, step).
    """
    if not watched():
        display_figure(draw(**{name: first for name, (first, *_) in ranges.items()}), caption)
        return
    from ipywidgets import FloatSlider, interact
    interact(lambda **values: display_figure(draw(**values), caption),
             **{name: FloatSlider(value=first, min=low, max=high, step=step, continuous_update=False)
                for name, (first, low, high, step) in ranges.items()})


def display_figure(fig: Figure, caption: str = "") -> None:
    """Show a figure with a text for screen readers, and its caption below."""
    from IPython.display import display
    display(fig, metadata={"image/png": {"alt": f"{caption} {figures.alt_text(fig)}".strip()}})
    plt.close(fig)
    if caption:
        say(f"*{caption}*")


@dataclass(frozen=True)
class Results:
    """What a notebook's result section shows.

    profiles: whose records. rows: the grid. records: run id -> record. runs, epochs: tidy frames, see report/frames.py.
    """

    profiles: tuple[str, ...]
    rows: list[grids.Row]
    records: dict[str, records.Record]

    @cached_property
    def runs(self) -> pd.DataFrame:
        """Return one line a run, see `frames.runs`."""
        return frames.runs(self.rows, self.records)

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """Return one line an epoch of a run, see `frames.epochs`."""
        return frames.epochs(self.rows, self.records)

    @cached_property
    def ids(self) -> list[str]:
        """Return the sorted run ids of all records."""
        return sorted(row.recipe.run_id for row in self.rows if row.recipe.run_id in self.records)


@dataclass(frozen=True)
class Session:
    """A notebook and the profile it runs in; made in the cell after the parameters.

    name: of the notebook, e.g. "05_spaced_kd". seeds: 0 = the profile's own. workers: as `running.run_all`.

    Raises:
        InputError: an unknown name or profile, a profile without runs of this notebook, or a number out of range.
    """

    name: str
    profile: str = "smoke"
    seeds: int = 0
    workers: int | str = 0

    def __post_init__(self):
        if not self.rows and self.name in ARMS:  # looked up now: bad values are refused before any work
            having = [name for name in PROFILES if grids.tuned_grid(name, self.name)]
            raise InputError(f'Profile "{self.profile}" has no runs of {self.name}: choose one of '
                             f"{', '.join(having)}.")
        running.check_workers(self.workers)
        figures.apply_style()

    @property
    def rows(self) -> list[grids.Row]:
        return grids.grid(self.profile, self.name, self.seeds)

    @property
    def folder(self) -> str:
        """Name the folder for this session's tables and figures.

        A number of seeds other than the profile's has a folder of its own, so that published results are not
        overwritten by a trial.
        """
        return grids.folder(self.profile, self.seeds)

    def train(self) -> Results:
        """Load every run of this notebook that is finished, and train the others.

        A person sees a progress bar; an executed copy shows nothing of it, so that it is the same each time.

        Raises:
            Stopped: the kernel was interrupted; what was done is saved.
        """
        here = Here() if self.profile == "smoke" and not self.workers and not watched() else None
        try:
            found = running.run_all([row.recipe for row in self.rows], self.workers, lambda line: None, here)
        except KeyboardInterrupt:
            raise Stopped("Stopped. What was done is saved: run this cell again to go on.") from None
        return Results((self.profile,), self.rows, {record.run_id: record for record in found})

    def results(self, measured: bool = False) -> Results:
        """Return the results that a reader sees.

        In smoke: the committed records, so that a reader sees real numbers. In every other profile, or if nothing is
        published: what was just run.

        Args:
            measured: only profiles whose measures are published too.
        """
        published = [name for name in frames.published_profiles()
                     if not measured or records.published_file(name, "measures.npz").exists()]
        if self.profile != "smoke" or not published:
            return self.train()
        return self._published(published, self.name)

    def series(self) -> Results:
        """Return the runs of all notebooks that are finished; train nothing.

        In smoke the published ones of every profile, else this profile's.
        """
        if self.profile == "smoke":
            return self._published(frames.published_profiles(), None)
        rows = grids.grid(self.profile, seeds=self.seeds)
        return Results((self.profile,), rows, frames.local_records(rows))

    def _published(self, profiles: list[str], name: str | None) -> Results:
        """Return published runs of a notebook, or of all."""
        found = frames.published(profiles, name)
        return Results(tuple(found), [row for rows, _ in found.values() for row in rows],
                       dict(ChainMap(*(of for _, of in found.values()))))

    def measures(self, shown: Results, name: str) -> dict[str, dict]:
        """Return run id -> values of a measure (`measures.MEASURES`) of the runs shown.

        They are as they are stored, else computed now; in smoke the published ones.
        """
        from ..analysis import measures  # brings torch
        if shown.profiles == (self.profile,):
            asked = [(recipe, which) for recipe, which in measures.wanted(shown.rows) if which == name]
            found = measures.measure_all(asked, self.workers)
        else:
            found = dict(ChainMap(*map(measures.read_published, shown.profiles)))
        return {run_id: values for (run_id, which), values in found.items()
                if which == name and run_id in shown.records}

    def source(self, shown: Results) -> None:
        """Print whose numbers follow. Smoke's own runs name no machine or commit: the kept copy stays the same."""
        for name in shown.profiles:
            of = [shown.records[r.recipe.run_id].provenance for r in grids.tuned_grid(name, self.name)
                  if r.recipe.run_id in shown.ids]
            if of and name == "smoke":
                print(f"Nothing is published yet: {len(of)} tiny runs of profile smoke, which tell nothing of methods.")
            elif of:
                kind = "just run" if name == self.profile else "published"
                print(f"Profile {name}, {kind}: {len(of)} runs. {text.hardware_and_versions(of)}.")
                if name == "quick":
                    print("These runs are short, few and not tuned: they show that all works, and cannot rank methods.")

    def figure(self, fig: Figure, name: str, caption: str, shown: Results | None = None) -> None:
        """Show a figure with its caption, and keep it in build/<profile>/figures/ with the ids of the records it shows.

        In smoke nothing is kept.
        """
        if self.profile != "smoke":
            path = records.built(self.folder) / "figures" / f"{self.name}-{name}.png"
            figures.save(fig, path, shown.ids if shown else [])
        display_figure(fig, caption)

    def record(self, table: pd.DataFrame) -> None:
        """Keep this notebook's numbers as CSV in build/<profile>/tables/; in smoke nothing is kept."""
        if self.profile == "smoke":
            print(f"{len(table)} rows; the smoke profile keeps none.")
            return
        path = records.built(self.folder) / "tables" / f"{self.name}.csv"
        text.write(table, path)
        print(f"Recorded {len(table)} rows in {path.relative_to(records.ROOT)}.")
