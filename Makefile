# Spaced KD: every command of the package. `make` alone lists them.
#
# The interpreter is, in this order: PY=... if given; an active conda environment other than base; else .venv,
# which is made here from requirements.lock. Nothing is installed anywhere else, unless INSTALL=1 asks for it.

## PROFILE=quick    smoke, quick, cifar100-slice, study, core or paper
## SEEDS=5          number of seeds; left out: the profile's own
## WORKERS=2        runs side by side, one thread each; left out: one a processor core, on a GPU as many as
##                  suit it; auto: on a GPU, also several seeds at once
## TIME_LIMIT=25m   stop cleanly after this time; the same command continues
## SLURM="..."      train as jobs of a Slurm cluster, e.g. "partition=gpu gpus_per_node=1 timeout_min=240"
## RERUN=1          reproduce: set finished runs aside and train them anew; to go on after a stop, leave it out
## SLOW=1           test: also the dry run of make gpu, ten kills at random moments, and smoke from the wheel; minutes
## MINUTES=10 SEED=0  fuzz: how long, and from which case on
## DATA=folder      where the data sets lie; left out: data
## EXACT=0          every kernel as fast as this processor allows; bits then differ from the published ones
## PY=python3.12    an interpreter of your own that has the packages
## ARGS="..."       further words for lab (--no-browser), gpu (--dry), tune (--data cifar100-slice), bench, gauntlet

# Variable -> the commands that read it; another name, or one given to another command, is refused. An exported variable
# of such a name means something else and is left out. A value reaches programs by the environment, never as shell text.
COMPUTING := lab plan reproduce tune verify test bench gpu soak fuzz gauntlet report
READ.PROFILE := plan reproduce publish verify report
READ.SEEDS := plan reproduce verify
READ.WORKERS := plan reproduce tune
READ.TIME_LIMIT := plan reproduce tune
READ.SLURM := reproduce
READ.RERUN := reproduce
READ.SLOW := test
READ.MINUTES := fuzz
READ.SEED := fuzz
READ.ARGS := lab tune bench gpu gauntlet
READ.DATA := $(COMPUTING)
READ.EXACT := $(filter-out bench,$(COMPUTING))
READ.PY := $(COMPUTING) env publish course reset wheel
READ.INSTALL := $(READ.PY)
GIVEN := $(patsubst READ.%,%,$(filter READ.%,$(.VARIABLES)))
GOALS := $(or $(MAKECMDGOALS),help)
$(foreach name,$(GIVEN),$(if $(filter environment%,$(origin $(name))),$(eval override $(name) :=)))
$(foreach name,$(.VARIABLES),$(if $(filter command%,$(origin $(name))),\
    $(if $(filter $(READ.$(name)),$(GOALS)),,$(error make $(GOALS) reads no variable $(name): make help lists them))\
    $(if $(findstring $$,$(value $(name))),$(error $(name) holds a dollar sign, which make reads: give none))))
$(foreach name,RERUN INSTALL SLOW,$(if $(filter-out 1,$($(name))),$(error Give $(name)=1, or leave $(name) out)))
$(if $(filter-out 0 1,$(EXACT)),$(error Give EXACT=0, or leave EXACT out))
# Where packages come from is the machine's matter; where they go, and how Python reads them, is not.
unexport $(filter-out UV_INDEX_% %INDEX %INDEX_URL %LINKS %CERT %CERTS %TLS %PROXY %HOST %TIMEOUT %RETRIES %PROVIDER,\
    $(filter PIP_% UV_%,$(.VARIABLES))) PYTHONHOME PYTHONOPTIMIZE

OPTIONS = --profile "$${PROFILE:-quick}" $(if $(SEEDS),--seeds "$$SEEDS") $(if $(WORKERS),--workers "$$WORKERS") \
    $(if $(TIME_LIMIT),--time-limit "$$TIME_LIMIT")
ifneq ($(DATA),)
export SPACEDKD_DATA := $(DATA)
endif
export PYTHONPATH := $(CURDIR)$(if $(value PYTHONPATH),:$(value PYTHONPATH))
unexport MPLBACKEND   # a backend from outside would drop the notebooks' figures without a word

# A changed lock, or a checkout that moved, gives another stamp and so a fresh installation.
STAMP := .venv/ready-$(shell (pwd; cat requirements.lock pyproject.toml) | cksum | cut -d ' ' -f 1)
READY := check
ifeq ($(PY),)
ifneq ($(and $(value CONDA_PREFIX),$(filter-out base,$(value CONDA_DEFAULT_ENV))),)
override PY := $(value CONDA_PREFIX)/bin/python
else
override PY := .venv/bin/python
READY := $(STAMP)
endif
endif
export PY
lab tune bench gpu gauntlet: private .SHELLFLAGS := -fc   # ARGS is cut into words, and no word is a pattern of files
SPACEDKD = "$$PY" -m spacedkd_lib
PYTEST = "$$PY" -m pytest -n 2
IN_NOTEBOOK = "$$PY" -m spacedkd_lib.notebook.runner#  runs a command in the environment that our notebooks get

.PHONY: help env check lab plan reproduce tune publish verify test bench gpu soak fuzz gauntlet report course reset \
    lock wheel clean distclean
.DEFAULT_GOAL := help

help: ## this list
	@echo "Commands:"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1@\2/p' Makefile | awk -F @ '{printf "%-18s%s\n", $$1, $$2}'
	@echo "Variables (make reproduce PROFILE=smoke):"
	@sed -n 's/^## /  /p' Makefile

env: $(READY) ## set up the Python environment; every other command does it too
	@"$$PY" -c 'import sys; print("Ready: Python", sys.version.split()[0], "at", sys.executable)'

lab: $(READY) ## open the notebooks in JupyterLab
	JUPYTER_PREFER_ENV_PATH=1 OMP_NUM_THREADS=1 "$$PY" -m spacedkd_lib.store.exact "$$PY" -m jupyterlab \
	    --ServerApp.root_dir="$$PWD" --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $$ARGS

plan: $(READY) ## print what would run, what is done, and an estimate of time and disk
	@$(SPACEDKD) plan $(OPTIONS)

reproduce: $(READY) ## train what is not trained yet; then tables, figures and executed notebooks
	@$(SPACEDKD) reproduce $(OPTIONS) $(if $(SLURM),--slurm "$$SLURM") $(if $(RERUN),--rerun)

tune: $(READY) ## choose the values of each family of arms on validation pictures; hours
	@$(SPACEDKD) tune $(if $(WORKERS),--workers "$$WORKERS") $(if $(TIME_LIMIT),--time-limit "$$TIME_LIMIT") $$ARGS

publish: $(READY) ## copy this profile's finished records from runs/ to results/
	@$(SPACEDKD) publish $(OPTIONS)

verify: $(READY) ## make a few updates of each published run again and compare; SEEDS=1: a sample
	@$(SPACEDKD) verify $(OPTIONS)

test: $(READY) ## run the tests, then every notebook, and compare its outputs
	OMP_NUM_THREADS=1 $(PYTEST) --doctest-modules spacedkd_lib tests < /dev/null
ifneq ($(wildcard notebooks/*.ipynb),)
	$(IN_NOTEBOOK) $(PYTEST) --dist loadfile --nbval-lax --nbval-current-env notebooks < /dev/null
else
	@echo "notebooks/ holds no notebook: nothing more to test."
endif

bench: $(READY) ## measure speed and memory against the plain way; tables in results/bench/
	EXACT=0 OMP_NUM_THREADS=1 "$$PY" -m spacedkd_lib.bench $$ARGS

gpu: $(READY) ## a quarter of an hour on a GPU: checks, speed, records of CIFAR-100; into build/gpu/
	OMP_NUM_THREADS=1 "$$PY" -m spacedkd_lib.bench.gpu $$ARGS

soak: $(READY) ## kill training 200 times at random moments; not one number may differ
	OMP_NUM_THREADS=1 "$$PY" tests/soak.py 200 1

fuzz: $(READY) ## random recipes, stops, damaged files and folders for MINUTES=10: numbers or one sentence
	OMP_NUM_THREADS=1 "$$PY" tests/fuzz.py "$${MINUTES:-10}" "$${SEED:-0}"

gauntlet: $(READY) ## plant faults in the engine one at a time; each must be caught by a test
	"$$PY" tests/gauntlet.py $$ARGS

report: $(READY) ## write a site of this profile's executed notebooks, READMEs and a reference to report/
	@$(SPACEDKD) report $(OPTIONS)

course: $(READY) ## write student copies and nbgrader's form of the notebooks to build/course/ (for teachers)
	@$(SPACEDKD) course

reset: $(READY) ## restore the notebooks as released; yours are kept in build/mine/
	@$(SPACEDKD) reset

lock: $(STAMP) ## pin the newest versions that pyproject.toml allows (for maintainers)
	.venv/bin/python -m uv pip compile pyproject.toml --extra lab --extra notebooks --extra dev \
	    --extra examples --extra setup --python-version 3.11 --universal --generate-hashes --no-header \
	    --upgrade --quiet --output-file requirements.lock

wheel: $(READY) ## build the package with its notebooks and records into build/dist/
	"$$PY" -m hatchling build -t wheel -d build/dist

clean: ## remove caches, build/ and report/; trained runs stay
	rm -rf build report .pytest_cache
	find . \( -name .venv -o -name .git -o -name runs -o -name data \) -prune -o \
	    \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

distclean: clean ## remove also .venv, decoded data in data/cache and ALL TRAINED RUNS in runs/
	rm -rf .venv data/cache runs

# An environment that is not ours: look, and install only when asked.
check:
	@command -v "$$PY" > /dev/null \
	    || { echo "$$PY cannot be run: give Python 3.11 or 3.12 as PY=..." >&2; exit 1; }
	$(if $(INSTALL),"$$PY" -m pip install --require-hashes -r requirements.lock)
	@"$$PY" .ci/environment.py

SUITABLE = 'import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'

# uv installs in a third of pip's time; pip alone is the way out where only pip knows the package index.
# Compiled bytecode saves every kernel six seconds of importing. Without --python, uv would install into whatever
# environment is active.
UV_INSTALL = .venv/bin/python -m uv pip install --python .venv/bin/python
$(STAMP):
	@.venv/bin/python -m pip --version > /dev/null 2>&1 || { \
	    for python in python3.11 python3.12 python3; do \
	        "$$python" -c $(SUITABLE) 2> /dev/null && break; python=; done; \
	    test -n "$$python" || { echo "Python 3.11 or 3.12 with its venv module was not found: install it (on" \
	        "Debian: python3 and python3-venv), or give one that has the packages as PY=..." >&2; exit 1; }; \
	    echo "Making .venv with $$python (once: 3 GB to download, 7 GB on disk)"; \
	    "$$python" -m venv --clear .venv; }
	@rm -f .venv/ready-*
	@sed -n '/^uv==/,/# via/p' requirements.lock > .venv/uv.txt
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.txt
	$(UV_INSTALL) --compile-bytecode --require-hashes -r requirements.lock \
	    || .venv/bin/python -m pip install --require-hashes -r requirements.lock
	$(UV_INSTALL) --quiet --no-deps --no-build-isolation --editable .
	@touch $@
