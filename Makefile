# make demo        set up, run the whole pipeline as params.yaml says, print where to look
# make up          Prefect server, schedules and workers on this machine, until Ctrl-C
# make test        style, types and the quick tests
# make test-slow   the tests that take minutes
# make soak        100,000 rows through the downloader, 50 scheduled runs: nothing grows (takes an hour, by hand)
# make doctor      whether this machine and repository are fit to run
# make dashboard   samples and metrics in the browser
# make clean       remove what runs made (keeps params.yaml and the environment)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# No telemetry from what is started here.
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DVC_NO_ANALYTICS := 1
export STREAMLIT_BROWSER_GATHER_USAGE_STATS := false
export HF_HUB_DISABLE_TELEMETRY := 1
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: demo setup up test test-slow soak doctor dashboard clean

demo: setup
	$(BIN)/python -m flows.pipeline
	@echo
	@echo "samples:    artifacts/evaluate/samples/"
	@echo "metrics:    artifacts/evaluate/metrics.json   ($(BIN)/dvc metrics show)"
	@echo "the model:  artifacts/train_super_resolution/  ($(BIN)/stylegan-t generate --help)"
	@echo "browse all: make dashboard"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,flows,dashboard,huggingface,ray,s3,dev]'
	@touch $@

up: setup
	$(BIN)/python -m flows.up

test: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/pytest -m 'not slow' --numprocesses 2 --dist loadfile

test-slow: setup
	$(BIN)/pytest -m slow --numprocesses 2 --dist loadfile

soak: setup
	$(BIN)/python benchmarks/soak.py
	$(BIN)/python benchmarks/orchestration.py soak

doctor: setup
	$(BIN)/python -m flows.doctor

dashboard: setup
	$(BIN)/streamlit run dashboard/app.py

clean:
	rm -rf artifacts data/raw data/scores data/prepared .state .workspaces dvc.lock
	rm -rf .dvc/cache .dvc/tmp .pytest_cache .ruff_cache
