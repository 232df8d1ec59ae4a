"""`python -m spacedkd_lib`: the commands behind the Makefile."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from functools import partial

from . import __version__
from .errors import InputError, nearest, not_installed, reading
from .store import places, stopping

MISSING = None
try:
    from .cluster import slurm
    from .lab import arms, claims, grids, planning, profiles, running, tuning
    from .notebook.runner import NotebookError, refresh as refresh_notebook
    from .notebook.series import NOTEBOOKS, Series
    from .recipes import VERSION, from_dict
    from .report import frames, readme, two_machines
    from .store import records
except ModuleNotFoundError as error:
    MISSING = error


def main(arguments: list[str] | None = None) -> int:
    """Run one command; bad input, or a package that is not installed, ends with one sentence and status 2."""
    version = argparse.ArgumentParser(add_help=False)
    version.add_argument("--version", action="version", version=__version__)
    version.parse_known_args(arguments)
    try:
        if MISSING:
            raise MISSING
        options = _parser(version).parse_args(arguments)
        places.settings()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays in force
                signal.signal(number, _stop)
        if getattr(options, "time_limit", ""):
            signal.setitimer(signal.ITIMER_REAL, stopping.seconds(options.time_limit))
        return options.function(options) or 0
    except ModuleNotFoundError as error:
        print(f"error: {not_installed('This command', error)}", file=sys.stderr)
        return 2
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except NotebookError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except stopping.Stopped as reason:
        print(f"stopped ({reason}); what was done is saved, and the same command continues", file=sys.stderr)
        return stopping.STATUS
    except KeyboardInterrupt:
        print("interrupted; what was done is saved, and the same command continues", file=sys.stderr)
        return 130
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)  # or it kills the interpreter on its way out


def _parser(version: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m spacedkd_lib", description="Spaced KD: plan, run, publish.",
                                     parents=[version])
    commands, known = parser.add_subparsers(dest="command", required=True), _options()
    for name, function in COMMANDS.items():
        command = commands.add_parser(name, help=(function.__doc__ or name).splitlines()[0])
        for option in USES.get(name, ()):
            command.add_argument(option, **known[option])
        command.set_defaults(function=function)
    return parser


def _options() -> dict[str, dict]:
    return {
        "recipe": dict(help="a JSON file of the recipe's fields; what is left out has its default"),
        "--data": dict(default="glyphs", help="one of " + ", ".join(profiles.TUNED)),
        "--families": dict(action="append", help="a family of arms; may be repeated; left out: all"),
        "--profile": dict(default="quick", help="one of " + ", ".join(profiles.PROFILES)),
        "--seeds": dict(type=int, default=0, help="0: the profile's own number"),
        "--workers": dict(type=count_or_auto, default=0, help="runs side by side; 0: as many as suit the machine; "
                          "auto: on a GPU also several seeds at once"),
        "--time-limit": dict(default="", help="stop cleanly after this time, such as 25m"),
        "--slurm": dict(default="", help="train as jobs of a Slurm cluster, with these parameters of submitit: "
                        '"partition=gpu timeout_min=240"'),
        "--rerun": dict(action="store_true", help="set finished runs aside and train them anew")}


def count_or_auto(text: str) -> int | str:
    """Read a number of workers, or "auto"."""
    return text if text == "auto" else int(text)


def _stop(number, _) -> None:
    raise stopping.Stopped("time limit" if number == signal.SIGALRM else signal.Signals(number).name)


def plan(options) -> None:
    """Print what would run, what is done, and an estimate of time and disk."""
    profile, rows = profiles.profile(options.profile), grids.grid(options.profile, None, options.seeds)
    print(f"Profile {profile.name}: {profile.purpose}.")
    for name in arms.ARMS:
        here = [row for row in rows if row.notebook == name]
        done = sum(records.load(row.recipe) is not None for row in here)
        for setting in dict.fromkeys(row.setting for row in here):
            names = dict.fromkeys(row.arm for row in here if row.setting == setting)
            print(f"  {name}, {setting}: {', '.join(names)}")
        print(f"  {name}: {len(here)} runs, {done} done")
    for setting in profile.settings:
        if setting.tuned and setting.label in claims.JUDGED:
            seeds = grids.seeds_of(profile, setting, "05_spaced_kd", options.seeds)
            families = {row.arm: row.family for row in rows}
            known = partial(tuning.scores, setting.tuned)
            if len(known(families[claims.AHEAD])) < 2:
                print(f"  Power in {setting.label}: unknown, since tuning had one seed, which has no spread.")
                continue
            print(f"  Power in {setting.label}, from the spread over the seeds of tuning:")
            print(claims.power(lambda arm: known(families[arm]), len(seeds)).round(2).to_string(index=False))
    print(plan_lines(rows, options.workers))


def plan_lines(rows: list[grids.Row], workers: int) -> str:
    """Distinct runs, done, time and disk still needed; then measures."""
    from .analysis import measures  # brings torch
    left = planning.plan(rows, workers)
    lines = [f"{left.runs} distinct runs (shared ones counted once), {left.done} done; the rest takes about "
             f"{_duration(left.seconds)} on this machine and {left.megabytes:.0f} MB in {records.runs_folder().name}/."]
    if other := len(running.made_by_other_code({row.recipe for row in rows})):
        lines.append(f"Made by other code: {other}. A few updates of each are made again; those that differ are "
                     "trained anew.")
    if number := sum(measures.stored(*asked) is None for asked in measures.wanted(rows)):
        lines.append(f"Then {number} measures of finished runs (landscape, curvature, robustness).")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


def reproduce(options) -> int:
    """Train what is not trained yet; then tables, figures and executed notebooks; compare with what is published."""
    from .analysis import measures  # brings torch
    started = time.monotonic()
    rows, folder = grids.grid(options.profile, None, options.seeds), grids.folder(options.profile, options.seeds)
    running.check_workers(options.workers)
    training, measuring = (slurm.Slurm(records.runs_folder() / ".slurm", **slurm.parse(options.slurm))
                           if options.slurm else None for _ in range(2))
    published = records.read_published(options.profile)  # bad records and folders are found before any training
    records.check_writable(records.built(folder))
    if options.rerun:
        print(f"Set aside, to be trained anew: {running.set_aside(row.recipe for row in rows)} finished runs.")
    say = partial(print, flush=True)
    with Series(options.profile, options.seeds, options.workers, say) as series:
        running.run_all([row.recipe for row in rows], options.workers, say, training, series.execute_ready)
        # before the notebooks that show them, which run two at a time and would both begin
        measures.measure_all(measures.wanted(rows), options.workers, say, measuring)
        executed = series.execute_all()
    found = frames.local_records(rows)
    frames.write_runs(rows, found, records.built(folder))
    print(f"Notebooks executed: {', '.join(executed) or 'none, all up to date'}.")
    page = (two_machines.comparison_page(rows, found, published) if published else
            f"Nothing is published for profile {options.profile}: there is nothing to compare with.")
    print(page)
    if published:
        records.write_atomically(records.built(folder) / "comparison.md", page)
    print(f"Done in {_duration(time.monotonic() - started)}. Tables, figures, executed notebooks"
          + " and this comparison" * bool(published) + f": build/{folder}/.")
    return 0


def publish(options) -> None:
    """Copy this profile's finished records and its tables to results/<profile>/; update the READMEs that show them.

    An arm is published whole, with all its seeds, or not at all.
    """
    if not (records.ROOT / "README.md").exists():
        raise InputError("Records are published in a checkout, whose README shows them: clone the repository, and give "
                         "the command there, without SPACEDKD_ROOT.")
    rows = grids.tuned_grid(profiles.profile(options.profile).name)
    untuned = sorted(set(arms.ARMS) - {row.notebook for row in rows})
    found = frames.local_records(rows)
    unfinished = {(row.notebook, row.setting, row.arm) for row in rows if row.recipe.run_id not in found}
    rows = [row for row in rows if (row.notebook, row.setting, row.arm) not in unfinished]
    if not rows:
        raise InputError(f"No arm of profile {options.profile} is finished with all its seeds: "
                         f"make reproduce PROFILE={options.profile} finishes them; nothing was published.")
    found = {row.recipe.run_id: found[row.recipe.run_id] for row in rows}
    path = records.publish(found.values(), options.profile)
    frames.write_runs(rows, found, path.parent)
    publish_drawn(options.profile, rows, found)
    from .analysis import measures
    measures.publish((row.recipe for row in rows), options.profile)
    readme.update_readme(records.ROOT / "README.md", readme.readme_block)
    readme.update_readme(records.ROOT / "results" / "README.md", readme.results_block)
    dirty = {record.provenance["git_dirty"] for record in found.values()}
    print(f"Published {len(found)} records in {path.relative_to(records.ROOT)}."
          + f" Not finished and left out: {len(unfinished)} arms." * bool(unfinished)
          + f" Not tuned and left out: {', '.join(untuned)}." * bool(untuned)
          + " Some were made by code that was not committed, and say so." * (True in dirty)
          + " Of some it is unknown whether their code was committed." * (None in dirty))


def publish_drawn(profile: str, rows: list[grids.Row], found: dict[str, records.Record]) -> None:
    """Copy a profile's tables to results/; draw the lead-lag law, which README shows, if its runs are published."""
    for table in (records.built(profile) / "tables").glob("*.csv"):
        records.write_atomically(records.ROOT / "results" / profile / "tables" / table.name, table.read_bytes())
    if law := [row for row in rows if row.setting == claims.LAG_SETTING]:
        from .report import figures
        drawn = figures.lead_lag(frames.runs(law, found))
        figures.save(drawn, records.ROOT / readme.LAW, {row.recipe.run_id for row in law})


def verify(options) -> int:
    """Make a few updates of each published run again, and name those that today's code or data would make otherwise."""
    published = records.read_published(profiles.profile(options.profile).name)
    if options.seeds:
        published = {row.recipe.run_id: published[row.recipe.run_id]
                     for row in grids.grid(options.profile, None, options.seeds) if row.recipe.run_id in published}
    marked = [record for record in published.values() if record.provenance.get("fingerprint")]
    other = [record for record in marked if not running.holds_today(record)]
    print(f"{len(marked) - len(other)} of {len(published)} published runs of {options.profile} hold today."
          + f" {len(published) - len(marked)} keep no updates to compare with." * (len(marked) < len(published)))
    for record in other:
        print(f"  Other today: run {record.run_id}, {record.recipe.in_words()}")
    return 1 if other else 0


def report(options) -> None:
    """Write the site with a profile's executed notebooks to report/; if there are none, those of the published runs."""
    source = records.built(profiles.profile(options.profile).name) / "notebooks"
    if not list(source.glob("*.ipynb")):
        draw_published(options.profile)
    from .report import pages
    target, start = records.ROOT / "report" / options.profile, ["README.md", "notebooks/00_start_here.ipynb"]
    first = pages.build_site(records.SHIPPED, start, target, source)
    pages.build_reference(target)
    print(f"Open {first.relative_to(records.ROOT)} in a browser.")


def draw_published(profile: str) -> None:
    """Draw all tables and figures of a profile from its published records: execute the notebooks on a copy of them.

    Raises:
        InputError: nothing is published.
    """
    from .analysis import measures
    published = records.read_published(profile)
    if not published:
        raise InputError(f"Nothing of profile {profile} is executed here or published: run make reproduce "
                         f"PROFILE={profile} first.")
    missing = {row.recipe.run_id for row in grids.grid(profile)} - published.keys()
    if missing:
        raise InputError(f"{len(missing)} runs of profile {profile} are not published: make reproduce "
                         f"PROFILE={profile} trains them.")
    os.environ["SPACEDKD_RUNS"] = str(records.built(profile) / "published")  # never among this machine's own runs
    example = grids.grid(profile, profiles.MEASURING[0])[0].recipe.run_id  # 06 and 07 need its weights, and train it
    left = {run_id: record for run_id, record in published.items() if run_id != example}
    records.restore(left.values())
    measures.restore(profile, left)
    with Series(profile) as series:
        series.execute_all()


def refresh(options) -> None:
    """Execute the notebooks in place with their own defaults (for maintainers): what nbval compares with."""
    for path in sorted(NOTEBOOKS.rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts:
            print(f"{path.name}: {'changed' if refresh_notebook(path) else 'unchanged'}", flush=True)


def course(options) -> None:
    """Write student copies of the notebooks and their form for nbgrader to build/course/ (for teachers)."""
    from .notebook import classroom
    print(classroom.make_course(records.ROOT / "build" / "course").to_string(index=False))
    print("Student copies: build/course/student/. For nbgrader: build/course/nbgrader/source/.")


def reset(options) -> None:
    """Restore the notebooks as they were released; yours are kept in build/mine/."""
    from .notebook import classroom
    kept = classroom.reset()
    print(f"The notebooks are as released; yours are in {kept.relative_to(records.ROOT)}." if kept else
          "The notebooks are as released; nothing had changed.")


def tune(options) -> None:
    """Choose the values of each family of arms on validation pictures; publish every trial in results/tuning/."""
    if options.data not in profiles.TUNED:
        raise InputError(nearest("tuned data set", options.data, profiles.TUNED))
    running.check_workers(options.workers)
    task = profiles.TUNED[options.data]
    names = list(task.families) if options.families in (None, ["all"]) else options.families
    tuning.tune(options.data, task, names, running.run_all, options.workers, partial(print, flush=True))
    if (records.ROOT / "README.md").exists():
        readme.update_readme(records.ROOT / "results" / "README.md", readme.results_block)
    print(f"Every trial and every choice: results/tuning/{options.data}/.")


def train(options) -> None:
    """Train one recipe (a JSON file of its fields); under torchrun, on all its processes."""
    import torch

    from .training import distributed
    example = '{"method": "online_kd", "interval": 1.5}'
    with reading(f"{options.recipe} is no recipe, or", f"give a JSON file of fields, such as {example}"):
        with open(options.recipe, "rb") as file:  # a device may have no end
            recipe = from_dict({"version": VERSION} | json.loads(file.read(1 << 20)), options.recipe)
    stopping.listen(signal.SIGTERM, signal.SIGINT)  # it trains in this process: to be stopped between two updates
    if "TORCHELASTIC_RUN_ID" in os.environ:
        device = distributed.start()
        running.run_together(recipe, device)
        torch.distributed.destroy_process_group()
    record = running.run(recipe)
    if os.environ.get("RANK", "0") == "0":
        print(f"Run {record.run_id} ({recipe.in_words()}): test accuracy {record.summary['test_accuracy']:.2f}% at the "
              f"last epoch; all of it in {records.runs_folder() / record.run_id}.")


COMMANDS = {"plan": plan, "reproduce": reproduce, "publish": publish, "verify": verify, "report": report,
            "refresh": refresh, "train": train, "tune": tune, "course": course, "reset": reset}
_GRID = ("--profile", "--seeds", "--workers", "--time-limit")
USES = {"plan": _GRID, "reproduce": (*_GRID, "--slurm", "--rerun"), "publish": ("--profile",),
        "verify": ("--profile", "--seeds"), "report": ("--profile",), "train": ("recipe",),
        "tune": ("--data", "--families", "--workers", "--time-limit")}

if __name__ == "__main__":
    sys.exit(main())
