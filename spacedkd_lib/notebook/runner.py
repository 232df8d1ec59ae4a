"""Run notebooks: parameters checked, every cell executed, the same bytes each time, nothing lost on failure.

papermill does the running. Its own command line goes on after a misspelt parameter, calls a notebook that
left by ``sys.exit(0)`` a success, and stores times and random ids; this module closes those gaps.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from pathlib import Path

from ..errors import InputError, nearest
from ..store import exact
from ..store.records import ROOT, write_atomically

BUILD = ROOT / "build"
IPYTHON_CONFIG = """\
c = get_config()
c.IPKernelApp.log_level = 50        # warnings at a kernel's start and end stay out of the terminal
c.HistoryManager.enabled = False    # kernels side by side would wait for one history file
"""
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
KEPT_CELL_METADATA = ("jupyter", "tags")
_managers: weakref.WeakSet = weakref.WeakSet()  # of the kernels that were started here
INJECTED = "injected-parameters"  # papermill's tag for the cell that it adds; we use it as the cell's id too


class NotebookError(RuntimeError):
    """A notebook did not run to its end: which one, in which cell, and why."""


def execute(notebook: Path, output: Path, parameters: dict, *, cwd: Path) -> None:
    """Run a notebook from its first cell to its last and write the executed, normalised copy.

    Several may run at once, in threads or processes.

    Args:
        notebook: the notebook to run; it is not changed, unless `output` is the same file.
        output: where the executed copy goes; replaced at the end, in one step, and only on success.
        parameters: name -> value for the cell tagged ``parameters``; empty = the notebook's own defaults.
        cwd: the kernel's working folder.

    Raises:
        InputError: the notebook has no such parameter (nothing was run then), or a cell raised InputError.
        NotebookError: a cell failed, or was never executed. What did run is left in ``build/notebooks/``.
    """
    notebook, output = Path(notebook).resolve(), Path(output).resolve()
    _check_parameters(notebook, parameters)
    draft = BUILD / "notebooks" / f"{notebook.stem}-{os.getpid()}-{threading.get_native_id()}.ipynb"
    draft.parent.mkdir(parents=True, exist_ok=True)
    nb = _run(notebook, draft, parameters, cwd)
    _check_complete(notebook, draft, nb)
    _replace(output, normalise(nb))
    draft.unlink()


def stop() -> None:
    """End every notebook that runs, at once: each `execute` under way raises an exception."""
    for manager in list(_managers):
        if process := getattr(manager.provisioner, "process", None):
            process.kill()


def refresh(notebook: Path) -> bool:
    """Run a notebook in place with its own defaults; True if that changed any byte of it.

    Raises:
        InputError, NotebookError: as `execute`; the notebook then stays as it was.
    """
    notebook = Path(notebook)
    before = notebook.read_bytes()
    execute(notebook, notebook, {}, cwd=notebook.parent)
    return notebook.read_bytes() != before


def normalise(nb):
    """Drop from an executed notebook what differs between two runs of one code; changes and returns `nb`.

    Dropped: papermill's notes, times, widget state, versions of kernel and language. Cells are numbered
    ``cell-0``, ``cell-1``, ...; the cell that papermill adds gets a name instead, so that the other ids are
    the same in every profile. Text that came in pieces is joined: where it breaks depends on timing.
    """
    nb.metadata = type(nb.metadata)(kernelspec=KERNELSPEC, language_info={"name": "python"})
    nb.nbformat, nb.nbformat_minor = 4, 5  # the first minor version with cell ids
    number = 0
    for cell in nb.cells:
        injected = INJECTED in cell.metadata.get("tags", [])
        cell.id = INJECTED if injected else f"cell-{number}"
        number += not injected
        kept = {key: cell.metadata[key] for key in KEPT_CELL_METADATA if cell.metadata.get(key)}
        cell.metadata = type(cell.metadata)(kept)
        if cell.cell_type == "code":
            cell.outputs = _join_streams(cell.outputs)
    return nb


def kernel_environment() -> dict[str, str]:
    """Return the environment of every notebook that we run or test: quiet, one thread, figures kept."""
    config = BUILD / "ipython" / "profile_default" / "ipython_kernel_config.py"
    if not config.exists():
        write_atomically(config, IPYTHON_CONFIG)
    path = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**exact.caps(), "IPYTHONDIR": str(BUILD / "ipython"),  # the user's own start-up files stay out
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # Agg would drop every figure silently
            "OMP_NUM_THREADS": "1",  # another thread count gives other low bits
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": os.pathsep.join(path),  # this checkout, installed or not
            "TQDM_DISABLE": "1"}


def _check_parameters(notebook: Path, parameters: dict) -> None:
    import nbformat
    from papermill import inspect_notebook

    nb = nbformat.read(notebook, as_version=4)
    nb.metadata.kernelspec = KERNELSPEC  # papermill asks for the language even where it stands to reason
    allowed = list(inspect_notebook(nb))
    for name in parameters:
        if not allowed:
            raise InputError(f'{notebook.name} takes no parameters and "{name}" was given: leave it out, or '
                             'tag the cell that holds its default "parameters".')
        if name not in allowed:
            raise InputError(nearest(f"parameter of {notebook.name}", name, allowed))


def _run(notebook: Path, draft: Path, parameters: dict, cwd: Path):
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError, execute_notebook

    try:
        return execute_notebook(  # no `cwd`: papermill would move this whole process, other threads included
            str(notebook), str(draft), parameters, resources={"metadata": {"path": str(cwd)}},
            kernel_name="python3", language="python", kernel_manager_class=_this_python(), start_timeout=300,
            record_timing=False, progress_bar=False)
    except PapermillExecutionError as error:
        if error.ename == "InputError":
            raise InputError(error.evalue) from None
        raise _failure(notebook, draft, error.exec_count, error.source, error.ename, error.evalue) from None
    except DeadKernelError:
        raise NotebookError(f"{notebook.name} stopped because its kernel died, perhaps for want of memory; "
                            f"{os.path.relpath(draft)} shows how far it came.") from None


def _this_python():
    """Make a kernel manager that starts this very interpreter, whatever kernels are installed on the machine."""
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    class ThisPython(AsyncKernelManager):
        shutdown_wait_time = 2.0  # seconds, not 5: now and then a kernel hangs when told to leave

        def __init__(self, **settings):
            super().__init__(**settings)
            _managers.add(self)

        @property
        def kernel_spec(self):
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, env=kernel_environment(), **KERNELSPEC)

    return ThisPython


def _check_complete(notebook: Path, draft: Path, nb) -> None:
    """Refuse what papermill lets pass: a cell that calls ``sys.exit(0)``, and cells that were never run."""
    for cell in nb.cells:
        if cell.cell_type != "code":
            continue
        for out in cell.outputs:
            if out.output_type == "error":
                raise _failure(notebook, draft, cell.execution_count, cell.source, out.ename, out.evalue)
        if cell.source.strip() and cell.execution_count is None:
            raise _failure(notebook, draft, " ", cell.source, "never run", "an earlier cell ended the kernel")


def _failure(notebook: Path, draft: Path, count, source: str, name: str, message: str) -> NotebookError:
    first, last = source.strip().splitlines()[0], (message.strip().splitlines() or [""])[-1]
    return NotebookError(f"{notebook.name} failed in cell [{count}] `{first}`: {name}: {last} "
                         f"(all of it: {os.path.relpath(draft)})")


def _join_streams(outputs: list) -> list:
    joined = []
    for out in outputs:
        last = joined[-1] if joined else {}
        if out["output_type"] == "stream" == last.get("output_type") and out["name"] == last["name"]:
            last["text"] += out["text"]
        else:
            joined.append(out)
    return joined


def _replace(output: Path, nb) -> None:
    import nbformat

    nbformat.validate(nb)
    write_atomically(output, nbformat.writes(nb) + "\n")


if __name__ == "__main__":  # python -m spacedkd_lib.notebook.runner COMMAND ...: in the kernels' environment
    os.execvpe(sys.argv[1], sys.argv[1:], {**os.environ, **kernel_environment()})
