"""The set-up: three lists of dependencies agree, the lock is portable, make picks the right interpreter."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from spacedkd_lib import __main__ as cli, __version__
from spacedkd_lib.store import records

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = [Requirement(text) for name in ("lab", "notebooks", "dev") for text in EXTRAS[name]]
LOCK = (ROOT / "requirements.lock").read_text()
COMMANDS = ["help", "env", "lab", "plan", "reproduce", "tune", "publish", "test", "bench", "gpu", "soak", "report",
            "clean", "distclean"]


def locked(python: str) -> dict[str, str]:
    """Package name -> the version that the lock pins for a Python version, on Linux."""
    where = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    pins = [Requirement(line.rstrip(" \\")) for line in LOCK.splitlines() if re.match(r"\w", line)]
    pins = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(where)]
    assert len({pin.name for pin in pins}) == len(pins), "a package is pinned twice for one Python version"
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in pins}


@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_the_lock_pins_every_direct_dependency_within_its_range(python):
    pins = locked(python)
    for wanted in DIRECT + [Requirement(text) for name in ("setup", "examples") for text in EXTRAS[name]]:
        version = pins[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(version), f"{wanted} but the lock has {version}"


def test_conda_installs_what_the_lock_pins():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    python = next(text.removeprefix("python=") for text in conda if str(text).startswith("python="))
    pip = next(entry["pip"] for entry in conda if isinstance(entry, dict))
    pins = locked(python)
    assert pip == [f"{r.name}=={pins[canonicalize_name(r.name)]}" for r in DIRECT]


def test_the_lock_is_hashed_and_names_no_place():
    for block in re.split(r"\n(?=\w)", LOCK):
        assert "--hash=sha256:" in block, block[:80]
    assert not re.search(r"://|--index|--find-links| @ |via -r|(^|\s)/\w", LOCK, re.M)


def test_versions_and_licence_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == __version__
    assert citation["license"] == PROJECT["license"] == (ROOT / "LICENSE").read_text().split()[0]
    assert len(citation["references"]) == 3 and all(ref["authors"] for ref in citation["references"])


def make(*arguments, cwd=ROOT, input="", **environment):
    """`make` in an environment that holds nothing but a PATH and what is given."""
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", **environment}
    return subprocess.run([shutil.which("make"), *arguments], cwd=cwd, env=environment, capture_output=True,
                          input=input, text=True)


def test_make_alone_lists_every_command():
    listed = make()
    assert re.findall(r"^  make (\w+) ", listed.stdout, re.M)[:2] == ["help", "env"], listed.stderr
    assert set(COMMANDS) <= set(re.findall(r"^  make (\w+) ", listed.stdout, re.M))
    assert listed.stdout == make("help").stdout


@pytest.mark.parametrize("given, environment, python", [
    (["PY=/given/python"], {"CONDA_PREFIX": "/conda", "CONDA_DEFAULT_ENV": "mine"}, "/given/python"),
    ([], {"CONDA_PREFIX": "/conda", "CONDA_DEFAULT_ENV": "mine"}, "/conda/bin/python"),
    ([], {"CONDA_PREFIX": "/conda", "CONDA_DEFAULT_ENV": "base"}, ".venv/bin/python"),
    ([], {}, ".venv/bin/python"),
])
def test_the_interpreter_is_given_or_conda_or_our_own(given, environment, python):
    dry = make("-f", "Makefile", "-f", "/dev/stdin", "--dry-run", "plan", "SEEDS=3", *given, **environment,
               input="$(info $(PY))").stdout
    assert dry.startswith(f"{python}\n")
    assert '"$PY" -m spacedkd_lib plan --profile "${PROFILE:-quick}" --seeds "$SEEDS"' in dry
    ours = python == ".venv/bin/python"
    assert (".ci/environment.py" in dry) == (not ours)
    assert ours or "install" not in dry  # an environment of the reader's own is looked at, never written to


@pytest.fixture
def program(tmp_path):
    """In place of Python: prints its words, a line each, and the environment."""
    path = tmp_path / "my python"
    path.write_text('#!/bin/sh\nprintf "<%s>\\n" "$@"\nenv\n')
    path.chmod(0o755)
    return path


def test_variables_come_from_the_command_line_alone(program):
    given = dict.fromkeys(("PROFILE", "SEEDS", "WORKERS", "SLURM", "RERUN", "SLOW", "EXACT", "INSTALL", "DATA"), "1")
    told = make("reproduce", f"PY={program}", **given, PY="/bin/false").stdout
    assert "<reproduce>\n<--profile>\n<quick>\n" in told and told.count("<--") == 1 and "install" not in told
    assert not re.search("^(SLOW|EXACT|SPACEDKD_DATA)=.", told, re.M)
    assert make("-f", "Makefile", "-f", "/dev/stdin", "-n", "help", PY="/bin/false",
                input="$(info $(PY))").stdout.startswith(".venv/")


def test_the_environment_says_where_packages_come_from_and_not_where_they_go(program):
    away = ("PIP_USER", "PIP_TARGET", "PIP_ROOT", "PIP_PREFIX", "PIP_CONFIG_FILE", "UV_CACHE_DIR", "UV_TARGET", "UV_PYTHON",
            "PYTHONOPTIMIZE", "PYTHONHOME", "MPLBACKEND")
    kept = ("PIP_INDEX_URL", "PIP_CERT", "UV_DEFAULT_INDEX", "HTTPS_PROXY")
    told = make("env", f"PY={program}", **dict.fromkeys(away + kept, "given")).stdout
    assert set(re.findall("^([A-Z_]+)=given$", told, re.M)) == set(kept)


@pytest.mark.parametrize("command, name", [
    *(("plan", name) for name in ("PROFILE", "SEEDS", "WORKERS", "TIME_LIMIT", "DATA")), ("reproduce", "SLURM"),
    ("tune", "ARGS"), ("fuzz", "MINUTES"), ("fuzz", "SEED"), ("plan", "PY")])
def test_values_never_reach_a_shell(program, tmp_path, command, name):
    """A harmful value arrives as it is, as a word or as a folder's name; of PY there is no such program."""
    harm = f"3`touch {tmp_path}/P`;touch {tmp_path}/P;'\"|touch {tmp_path}/P\ntouch {tmp_path}/P * "
    told = make(command, f"PY={program}", f"{name}={harm}").stdout
    words = "".join(f"<{word}>\n" for word in harm.split()) if name == "ARGS" else f"<{harm}>\n"
    assert (words in told or f"SPACEDKD_DATA={harm}\n" in told) == (name != "PY")
    for value in ("$(shell touch P)", "$$(touch P)", "a$x"):
        assert "dollar sign" in make(command, f"PY={program}", f"{name}={value.replace('P', f'{tmp_path}/P')}").stderr
    make("plan", "--dry-run", CONDA_PREFIX=f"$(shell touch {tmp_path}/P)", CONDA_DEFAULT_ENV="mine")
    assert not (tmp_path / "P").exists()


@pytest.mark.parametrize("command, given", [
    ("test", "PROFILE=study"), ("lab", "SEEDS=3"), ("gpu", "PROFILE=core"), ("tune", "SEEDS=9"), ("plan", "SLURM=x"),
    ("clean", "DATA=x"), ("plan", "PROFIL=smoke"), ("plan", "PROFIL:=smoke"), ("plan", "READY="), ("plan", "SHELL=x"),
    ("reproduce", "RERUN=0"), ("env", "INSTALL=no"), ("test", "EXACT=yes")])
def test_a_variable_that_a_command_does_not_read_is_refused(command, given):
    done = make("--dry-run", command, given)
    assert done.returncode and re.split("[:=]", given)[0] in done.stderr and not done.stdout


@pytest.mark.parametrize("command", ["report", "publish"])
def test_options_that_a_command_does_not_read_are_refused(command):
    with pytest.raises(SystemExit):
        cli.main([command, "--profile", "quick", "--seeds", "3"])


def test_a_changed_lock_installs_again(tmp_path):
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)

    def stamp():
        return re.search(r"touch (\.venv/ready-\d+)", make("--dry-run", "env", cwd=tmp_path).stdout)[1]

    before = stamp()
    (tmp_path / ".venv").mkdir()
    (tmp_path / before).touch()
    assert "pip install" not in make("--dry-run", "env", cwd=tmp_path).stdout
    (tmp_path / "requirements.lock").write_text(LOCK + "# changed\n")
    assert stamp() != before


def test_without_a_suitable_python_one_sentence_says_so(tmp_path):
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "cat", "cksum", "cut"):
        (tools / tool).symlink_to(shutil.which(tool))
    (tools / "python3").write_text("#!/bin/sh\nexit 1\n")  # says no to every question, as an old Python would
    (tools / "python3").chmod(0o755)
    done = make("env", cwd=tmp_path, PATH=str(tools))
    assert done.returncode != 0 and not (tmp_path / ".venv").exists()
    assert done.stderr.startswith("Python 3.11 or 3.12 with its venv module was not found: install it")


def test_an_environment_of_ones_own_is_checked_and_not_changed(tmp_path):
    check = runpy.run_path(str(ROOT / ".ci" / "environment.py"))
    assert check["problems"](ROOT / "pyproject.toml") == []
    wrong = tmp_path / "pyproject.toml"
    wrong.write_text('[project.optional-dependencies]\nlab = ["torch>=99", "no-such-package", "tqdm"]\n'
                     'notebooks = []\ndev = []\n')
    with pytest.raises(SystemExit, match=r"torch is \S+ where >=99 is needed, no-such-package is missing"):
        check["main"](wrong)


def test_continuous_integration_runs_make_test():
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111, "not executable"
    assert re.search(r"^exec make test\b", (ROOT / ".ci" / "run").read_text(), re.M)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Runs a command of an environment elsewhere that holds our wheel alone; unless told, with all that is here behind it."""
    pytest.importorskip("hatchling")  # where ours is not the environment
    place = tmp_path_factory.mktemp("elsewhere")
    for command in (["hatchling", "build", "-t", "wheel", "-d", str(place)], ["venv", "--without-pip", str(place / "env")]):
        subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True, capture_output=True)
    wheel, = place.glob("*.whl")
    subprocess.run([sys.executable, "-m", "pip", "--python", str(place / "env/bin/python"), "install", "--no-deps",
                    "--no-index", str(wheel)], check=True, capture_output=True)
    site, = place.glob("env/lib/python*/site-packages")

    def run(command, *arguments, lent=True):
        path = f"{site}:{sysconfig.get_path('purelib')}" if lent else ""
        environment = {"PATH": os.environ["PATH"], "HOME": str(place), "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run([place / "env/bin" / command, *arguments], cwd=place, env=environment, capture_output=True,
                              text=True)
    run.place, run.site = place, site
    return run


def test_the_wheel_brings_notebooks_and_records_and_writes_beside_neither(installed):
    shipped = installed.site / "spacedkd_lib" / "shipped"
    assert {path.name for path in (ROOT / "notebooks").glob("*.*")} <= {
        path.name for path in (shipped / "notebooks").iterdir()}
    assert (shipped / "README.md").exists()  # where the site begins
    before = sorted(installed.site.rglob("*"))
    done = installed("python", "-c", "from spacedkd_lib.store import records, software; from spacedkd_lib.data import "
                     "datasets; print(len(records.read_published('quick')), datasets.load('digits').num_classes, "
                     "software.describe()['git_commit'], records.runs_folder())")
    assert done.stdout.split()[:3] == [str(len(records.read_published("quick"))), "10", "None"], done.stderr
    assert Path(done.stdout.split()[3]).is_relative_to(installed.place)
    assert sorted(installed.site.rglob("*")) == before
    assert installed("spacedkd", "publish", "--profile", "quick").stderr.startswith("error: Records are published in")


def test_the_iterator_and_the_version_need_the_standard_library_alone(installed):
    done = installed("python", "-c", "import spacedkd_lib as skd\nprint([step.kind for step in skd.Spaced([1, 2], 1, 1.0)])"
                     "\ntry: skd.train\nexcept ImportError as error: print(error)", lent=False)
    assert done.stdout.startswith("['teach', 'teach', 'learn', 'learn', 'epoch']\n"), done.stderr
    assert "spacedkd[lab" in done.stdout
    assert installed("spacedkd", "--version", lent=False).stdout == f"{__version__}\n"
    for arguments in (["plan"], ["reproduce", "--profile", "smoke"], ["train", "recipe.json"], ["--help"]):
        done = installed("spacedkd", *arguments, lent=False)
        assert done.returncode == 2 and re.fullmatch(r"error: .* needs \w+, .*spacedkd\[lab,notebooks\]\".\n", done.stderr)


@pytest.mark.parametrize("command, missing", (("reproduce", "papermill"), ("report", "papermill"), ("verify", "torch")))
def test_a_package_that_a_command_lacks_is_named_before_any_work(command, missing, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("SPACEDKD_RUNS", str(tmp_path))
    monkeypatch.setattr(cli.records, "ROOT", tmp_path)  # what make reproduce left in build/ is reported without either
    monkeypatch.setattr(cli.running, "run_all", lambda *_: pytest.fail("trained"))
    monkeypatch.setattr(cli, "draw_published", cli.Series)
    for name in list(sys.modules):
        if name.partition(".")[0] == missing or name.startswith("spacedkd_lib.training"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    assert cli.main([command, "--profile", "quick"]) == 2
    assert f"needs {missing}, which is not installed: pip install" in capsys.readouterr().err


@pytest.mark.skipif(not os.environ.get("SLOW"), reason="trains and executes the series, three minutes: make test SLOW=1")
def test_the_series_is_reproduced_from_the_wheel(installed):
    before = sorted(installed.site.rglob("*"))
    done = installed("spacedkd", "reproduce", "--profile", "smoke")
    assert not done.returncode and "Done in" in done.stdout, done.stderr
    made, = installed.place.rglob("build/smoke/runs.csv")
    assert made.is_relative_to(installed.place / ".local") and len(list(made.parent.glob("notebooks/*.ipynb"))) == len(
        list((ROOT / "notebooks").glob("[01]*.ipynb")))
    assert sorted(installed.site.rglob("*")) == before
