"""One hash on every x86: kernels capped at what all processors with AVX2 share. No torch here.

ATen and oneDNN choose a kernel by the instruction set, MKL by who made the processor, and each kernel adds in an order
of its own. Under these caps, on one thread and in float32, an AMD EPYC and an Intel Xeon end in the same bits. torch
reads them when it is loaded, so they are set when this package is imported. EXACT=0 leaves every kernel to the machine.
"""

from __future__ import annotations

import os
import platform
import sys

CAPS = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE"}
_late = False  # torch was loaded before the caps were set


def caps() -> dict[str, str]:
    """Return the caps as environment variables; none with EXACT=0, or on a processor that is no x86."""
    x86 = platform.machine() in ("x86_64", "AMD64")
    return CAPS if x86 and os.environ.get("EXACT", "1") != "0" else {}


def cap() -> None:
    """Cap this process and its children; what the user has set already stays."""
    global _late
    missing = {name: value for name, value in caps().items() if name not in os.environ}
    _late = bool(missing) and "torch" in sys.modules
    os.environ.update(missing)


def why_not(capability: str, threads: int) -> str:
    """Say in one sentence why training here does not give the published bits; empty if it does.

    Args:
        capability: `torch.backends.cpu.get_cpu_capability()`.
        threads: `torch.get_num_threads()`.
    """
    if not caps():
        return "EXACT=0 is set, or this is no x86 processor: results equal the published ones statistically."
    if _late:
        return ("torch was imported before spacedkd_lib, too late to cap its kernels: import spacedkd_lib first, or "
                "set EXACT=0 to accept results that equal the published ones statistically.")
    if other := [f"{name}={os.environ.get(name)}" for name, value in CAPS.items() if os.environ.get(name) != value]:
        return f"{', '.join(other)} is set where the published bits need other kernels: unset it, or set EXACT=0."
    if capability != "AVX2":
        return f"This processor lacks AVX2 (torch uses {capability}): its bits differ; set EXACT=0 to accept that."
    if threads != 1:
        return f"torch uses {threads} threads and the published bits need one: set OMP_NUM_THREADS=1, or EXACT=0."
    return ""


if __name__ == "__main__":  # python -m spacedkd_lib.store.exact COMMAND ...: under the caps, as in `make lab`
    os.execvp(sys.argv[1], sys.argv[1:])
