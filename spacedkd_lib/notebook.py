"""What only notebooks need: their records, where their tables and figures go, their exercises."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd
from matplotlib.figure import Figure

from . import figures, records, study, tables
from .recipes import InputError


def show(table: pd.DataFrame) -> None:
    """A table as a reader sees it: numbers formatted, differences with their intervals."""
    from IPython.display import Markdown, display
    display(Markdown(tables.markdown(table)))


def show_results(summary: pd.DataFrame) -> None:
    """A table of results in two parts: accuracies with their differences, then all that qualifies them."""
    table = tables.formatted(summary)
    outcome = [name for name in table if name == "n" or name.startswith(("Test accuracy", "vs "))]
    keys = ["Setting", "Arm"]
    show(table[keys + outcome])
    show(table[keys + [name for name in table if name not in keys + outcome]])


@dataclass(frozen=True)
class Results:
    """What a notebook's result section shows.

    profile: whose records. rows: the grid. records: run id -> record. runs, epochs: tidy frames, see tables.
    """

    profile: str
    rows: list[study.Row]
    records: dict[str, records.Record]

    @cached_property
    def runs(self) -> pd.DataFrame:
        return tables.runs(self.rows, self.records)

    @cached_property
    def epochs(self) -> pd.DataFrame:
        return tables.epochs(self.rows, self.records)

    @property
    def ids(self) -> list[str]:
        return sorted(row.recipe.run_id for row in self.rows if row.recipe.run_id in self.records)


@dataclass(frozen=True)
class Session:
    """A notebook and the profile it runs in; made in the cell after the parameters.

    name: of the notebook, e.g. "05_spaced_kd". seeds: 0 = the profile's own. workers: 0 = one a core.

    Raises:
        InputError: an unknown name or profile, or a number out of range.
    """

    name: str
    profile: str = "smoke"
    seeds: int = 0
    workers: int = 0

    def __post_init__(self):
        study.grid(self.profile, self.name, self.seeds)  # refuses bad values now, before any work
        if self.workers < 0:
            raise InputError(f"workers = {self.workers} is out of range: give a positive count, or 0 for one a core.")
        figures.style()

    @property
    def rows(self) -> list[study.Row]:
        return study.grid(self.profile, self.name, self.seeds)

    def train(self) -> Results:
        """Every run of this notebook: loaded if it is finished, else trained now. A person sees a progress bar; an
        executed copy shows nothing of it, so that it is the same each time."""
        found = study.run_all([row.recipe for row in self.rows], self.workers, say=lambda line: None)
        return Results(self.profile, self.rows, {record.run_id: record for record in found})

    def results(self) -> Results:
        """In smoke: the committed records of the largest profile at hand, so that a reader sees real numbers. In
        every other profile: what was just run."""
        if self.profile != "smoke":
            return self.train()
        published = tables.best_published()
        if not published:
            return self.train()
        return Results(published, study.grid(published, self.name), records.read_published(published))

    def source(self, shown: Results) -> str:
        """One line that says whose numbers follow."""
        if not shown.records:
            return f"No records of profile {shown.profile} for this notebook."
        one = next(iter(shown.records.values())).provenance
        kind = "published records" if self.profile == "smoke" and shown.profile != "smoke" else "records just run"
        return (f"Profile {shown.profile}, {kind}: {len(shown.ids)} runs on {one['cpu']} ({one['device']}), "
                f"torch {one['torch']}, commit {one['git_commit'][:8] or 'unknown'}.")

    def save(self, fig: Figure, name: str, shown: Results) -> None:
        """Keep a figure under figures/<profile>/; in smoke nothing is kept."""
        if self.profile != "smoke":
            figures.save(fig, f"{self.name}-{name}", self.profile, shown.ids)

    def record(self, table: pd.DataFrame) -> None:
        """Keep this notebook's numbers as CSV, Markdown and LaTeX under results/<profile>/tables/; in smoke nothing
        is kept."""
        if self.profile == "smoke":
            print(f"{len(table)} rows; the smoke profile keeps none.")
            return
        tables.write(table, records.ROOT / "results" / self.profile / "tables" / self.name)
        print(f"Recorded {len(table)} rows in results/{self.profile}/tables/{self.name}.csv, .md and .tex.")
