#!/bin/bash
# A real Slurm of one node in a temporary folder, and a small grid through it that is interrupted in four ways; at the
# end all records must be those of runs in one process. Three to six minutes on two cores.
#
#     sudo tests/slurm_one_node.sh            # a Debian machine or container, as root; systemd is not needed
#
# Installs slurm-wlm and munge if they are missing; nothing else outside the temporary folder is touched. PYTHON=...
# names the interpreter, by default that of .venv.
set -euo pipefail
CDPATH= cd -- "$(dirname -- "$0")/.."
PYTHON=${PYTHON:-$PWD/.venv/bin/python}
[ "$(id -u)" = 0 ] || { echo "This starts Slurm's daemons: run it as root." >&2; exit 2; }
command -v slurmctld > /dev/null && command -v munged > /dev/null || {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends slurm-wlm munge > /dev/null; }

DIR=$(mktemp -d --tmpdir slurm-one-node.XXXXXX)
chmod 755 "$DIR"
export DIR SLURM_CONF=$DIR/slurm.conf
stop() {
    code=$?
    scancel --quiet --user=root 2> /dev/null && sleep 2 || true
    for daemon in slurmd slurmctld munged; do
        [ -s "$DIR/$daemon.pid" ] || continue
        pid=$(cat "$DIR/$daemon.pid")
        kill "$pid" 2> /dev/null || true
        for _ in $(seq 50); do kill -0 "$pid" 2> /dev/null || break; sleep 0.2; done
    done
    [ $code = 0 ] || tail -n 20 "$DIR"/slurm*.log "$DIR"/munged.log >&2 || true
    rm -rf "$DIR"
    exit $code
}
trap stop EXIT
trap 'exit 130' INT TERM

mkdir -p "$DIR/state" "$DIR/spool" "$DIR/runs"
head -c 128 /dev/urandom > "$DIR/munge.key"
chmod 400 "$DIR/munge.key"
munged --key-file="$DIR/munge.key" --socket="$DIR/munge.socket" --pid-file="$DIR/munged.pid" \
    --log-file="$DIR/munged.log" --seed-file="$DIR/munge.seed"
NODE=$(hostname -s)
# Two partitions: what is submitted to "urgent" preempts what runs in "main".
cat > "$SLURM_CONF" <<CONF
ClusterName=onenode
SlurmctldHost=$NODE(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$DIR/munge.socket
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/slurmd.pid
SlurmctldLogFile=$DIR/slurmctld.log
SlurmdLogFile=$DIR/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=0
MinJobAge=3600
OverTimeLimit=0
KillWait=20
NodeName=$NODE NodeAddr=127.0.0.1 CPUs=$(getconf _NPROCESSORS_ONLN) State=UNKNOWN
PartitionName=main Nodes=$NODE Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=$NODE MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
CONF
slurmctld
slurmd
for _ in $(seq 100); do sinfo -h -o %t 2> /dev/null | grep -q idle && break; sleep 0.2; done
sinfo --version
sinfo

export PYTHONPATH=$PWD OMP_NUM_THREADS=1 SPACEDKD_RUNS=$DIR/runs
"$PYTHON" - "$DIR" <<'PY'
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch

from spacedkd_lib.cluster import slurm
from spacedkd_lib.lab import grids, running, sweeps
from spacedkd_lib.store import records

FOLDER = Path(sys.argv[1])
slurm.SECONDS["slurm"] = 2  # this Slurm has nothing else to do


def grid():
    """The arms of the smoke grids, long enough to be interrupted."""
    rows = grids.grid("smoke", "02_baselines", 1) + grids.grid("smoke", "05_spaced_kd", 1)
    for recipe in grids.unique(rows):
        yield replace(recipe, epochs=100, interval=100.0 if recipe.method == "offline_kd" else recipe.interval)


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


RECIPES = list(grid())
PLANNED = sweeps.sweeps(RECIPES, workers=4)  # job <array>_<i> is PLANNED[i]
LOGS = {}


def log(i):
    """Lines of a sweep's log; kept, as the file goes when the sweep is finished."""
    if PLANNED[i].log.exists():
        LOGS[i] = PLANNED[i].log.read_text().splitlines()
    return LOGS.get(i, [])


def in_training():
    """Waits until every job that runs has trained an epoch from now on; their ids. Slurm lets a requeued job wait for
    two minutes: not here."""
    before = [len(log(i)) for i in range(len(PLANNED))]
    while True:
        time.sleep(0.3)
        for job in run("squeue", "--noheader", "--array", "--states=PENDING", "--format=%i", f"--name={slurm.NAME}"):
            subprocess.run(["scontrol", "update", f"jobid={job}", "starttime=now"], capture_output=True)
        grown = [i for i in range(len(PLANNED)) if len(log(i)) > before[i]]
        jobs = run("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i", f"--name={slurm.NAME}")
        if jobs and {int(job.split("_")[1]) for job in jobs} <= set(grown):
            return jobs


def interrupt():
    job = in_training()[0]
    print(f"Job {job}: the signal before the time runs out", flush=True)
    run("scancel", "--signal=USR2", job)
    time.sleep(2)
    job = in_training()[-1]
    print(f"Job {job}: requeued by the administrator", flush=True)
    run("scontrol", "requeue", job)
    time.sleep(2)
    print(f"Jobs {', '.join(in_training())}: preempted by a job of more priority, with 20 s of grace", flush=True)
    run("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    while run("squeue", "--noheader", "--partition=urgent"):
        time.sleep(0.3)
    print(f"Jobs {', '.join(in_training())}: Ctrl-C in the command that waits for them", flush=True)
    os.kill(os.getpid(), signal.SIGINT)


def through_slurm():
    executor = slurm.Slurm(FOLDER / "jobs", **slurm.parse("partition=main timeout_min=30 cpus_per_task=1"))
    return running.run_all(RECIPES, workers=4, executor=executor)


threading.Thread(target=interrupt, daemon=True).start()
try:
    through_slurm()
    sys.exit("The grid ended before it could be interrupted.")
except KeyboardInterrupt:
    print("Stopped. Unfinished:", sum(records.load(recipe) is None for recipe in RECIPES), "of", len(RECIPES))
assert not run("squeue", "--noheader"), "jobs were left behind"
restarts = sum(int(word.split("=")[1]) for word in run("scontrol", "show", "job") if word.startswith("Restarts="))
assert restarts >= 3, f"{restarts} restarts"
found = through_slurm()

repeated = [line for lines in LOGS.values() for line, times in Counter(lines).items()
            if times > 1 and line.startswith("epoch")]
assert not repeated, f"trained twice: {repeated}"
os.environ["SPACEDKD_RUNS"] = str(FOLDER / "here")
torch.set_num_threads(1)
for record in found:
    here = running.run(record.recipe, lambda row: None)
    assert record.numbers() == here.numbers(), record.recipe.in_words()
    assert record.provenance["weights_sha256"] == here.provenance["weights_sha256"], record.recipe.in_words()
print(f"{len(found)} runs through Slurm, requeued {restarts} times and stopped once: all numbers and weights are those "
      "of runs in one process, and no epoch was trained twice.")
PY
