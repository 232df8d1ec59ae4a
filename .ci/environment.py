"""Does this interpreter have what pyproject.toml asks for? If not: one sentence, exit code 1.

Run by `make` on an environment that is not its own (PY=..., or an active conda environment). Written in
syntax that any Python 3 reads, so that one that is too old can say so.
"""

import sys
from pathlib import Path


def problems(pyproject):
    """What is missing or out of range, as a list of texts; empty if all is well."""
    import tomllib
    from importlib import metadata

    try:
        from packaging.requirements import Requirement
    except ImportError:
        return ["packaging is missing"]
    extras = tomllib.loads(Path(pyproject).read_text())["project"]["optional-dependencies"]
    found = []
    for wanted in map(Requirement, extras["lab"] + extras["notebooks"] + extras["dev"]):
        try:
            installed = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            found.append("%s is missing" % wanted.name)
            continue
        if not wanted.specifier.contains(installed, prereleases=True):
            found.append("%s is %s where %s is needed" % (wanted.name, installed, wanted.specifier))
    return found


def main(pyproject):
    here = "%s (Python %d.%d)" % ((sys.executable,) + sys.version_info[:2])
    if sys.version_info < (3, 11):
        sys.exit(here + " is too old: give Python 3.11 or 3.12 as PY=...")
    found = problems(pyproject)
    if found:
        sys.exit(here + " cannot run this package, because " + ", ".join(found)
                 + ": add INSTALL=1 to install the locked versions there, or give another PY=...")


if __name__ == "__main__":
    main(Path(__file__).resolve().parents[1] / "pyproject.toml")
