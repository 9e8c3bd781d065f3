# Each target sets up what it needs, in .venv, from the locks in requirements/. `make help` lists them.
PYTHON ?= python3
VENV := .venv
NEWEST := .venv-newest
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
# Apache Flink's Python package, and with it the main lock, ends at Python 3.12.
MAIN := $(shell $(PYTHON) -c 'import sys; print("main" if sys.version_info < (3, 13) else "newest")')

LINES ?= 1000000
SEED ?= 1
DEMO := demo/$(LINES)-$(SEED)
INPUT ?=
FORMAT ?= combined
OUT ?= out
ARGS ?=

# Without compiled modules every command would compile Beam anew, which takes longer than importing it.
unexport PYTHONDONTWRITEBYTECODE

# What runs on the newest Beam besides the unit tests: the runners, and a store's client of each kind.
NEWEST_TOO = fn_runner spark kafka mongodb redis

.PHONY: help logs test lint soak clusters clusters-stop conformance bench lock clean

help:  ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

logs: $(VENV)/.run  ## Run the logs pipeline on simulated logs, or on yours: INPUT='logs/*.log' FORMAT=combined
ifeq ($(INPUT),)
	@$(BIN)/python -m fabric_beam.demo --lines $(LINES) --seed $(SEED) --out $(DEMO)
	@$(BIN)/python -m pipelines.logs --input '$(DEMO)/access' --format combined --sink '*=parquet:$(OUT)' \
		--map "service.name=split_part(split_part(source, '/access/', 2), '-', 1)" $(ARGS)
	@$(BIN)/python -m fabric_beam.demo.found --truth $(DEMO)/truth.json --alerts $(OUT)/alerts
else
	@$(BIN)/python -m pipelines.logs --input $(INPUT) --format $(FORMAT) --sink '*=parquet:$(OUT)' $(ARGS)
endif

test: lint $(NEWEST)/.test  ## Run every test, on the main lock and on the newest Beam
	-@command -v go >/dev/null && $(BIN)/python -c 'from fabric_beam.runners.prism import binary; binary()'
	$(BIN)/python -m fabric_beam.testing.servers.maven
	$(BIN)/python -m pytest -n 2 --dist loadgroup
	$(NEWEST)/bin/python -m pytest -n 2 --dist loadgroup --ignore tests/pipelines --ignore tests/integration \
		--ignore fabric_beam/runners/flink
	$(NEWEST)/bin/python -m pytest -n 2 --dist loadgroup $(NEWEST_TOO:%=tests/integration/test_%.py)

lint: $(VENV)/.test  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

soak: $(VENV)/.test  ## Look for new counter-examples of every property, and kill workers again and again; takes hours
	HYPOTHESIS_PROFILE=new $(BIN)/python -m pytest -n 2 --dist worksteal --timeout 3600 -m "not real_data" -k "not logs" \
		--ignore tests/integration
	mkdir -p out && rm -f out/soak.jsonl
	FABRIC_BEAM_SOAK=$(CURDIR)/out/soak.jsonl $(BIN)/python -m pytest -n 2 --dist loadgroup --count 10 \
		tests/integration -k "killed or frozen"
	$(BIN)/python -m tests.integration.soak out/soak.jsonl

clusters: $(VENV)/.test  ## Start a Spark and a Flink cluster on this machine, to try things; `make clusters-stop` ends them
	$(BIN)/python -m fabric_beam.testing.clusters.spark start
	$(BIN)/python -m fabric_beam.testing.clusters.flink start

clusters-stop:
	-$(BIN)/python -m fabric_beam.testing.clusters.spark stop
	-$(BIN)/python -m fabric_beam.testing.clusters.flink stop

conformance: $(VENV)/.test  ## Run Beam's own runner tests on every runner and write docs/runners.md
	$(BIN)/python -m tests.integration.conformance

bench: $(VENV)/.test  ## Measure, side by side with what else does the job
	$(BIN)/python -m benchmarks.access_log

lock: $(VENV)/.uv  ## Resolve the locks again
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --upgrade setup.py --all-extras \
		requirements/test.in -o requirements/main.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes setup.py --extra sklearn \
		-c requirements/main.lock -o requirements/run.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --upgrade setup.py --extra cassandra \
		--extra kafka --extra mongodb --extra pinot --extra redis --extra sklearn --extra spark requirements/test.in requirements/newest.in -o requirements/newest.lock

clean:  ## Remove what runs and tests leave behind; the environments stay
	rm -rf out demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.uv:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 11) <= v < (3, 14) and \
		f"Python 3.11, 3.12 or 3.13 is needed, and $(PYTHON) is {v.major}.{v.minor}: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(VENV)/.run: $(VENV)/.uv requirements/run.lock requirements/newest.lock
	$(BIN)/uv pip install -q --python $(BIN)/python -r requirements/$(if $(filter main,$(MAIN)),run,newest).lock
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements/main.lock requirements/newest.lock
	$(BIN)/uv pip install -q --python $(BIN)/python -r requirements/$(MAIN).lock
	@touch $@

$(NEWEST)/.test: $(VENV)/.uv requirements/newest.lock
	$(BIN)/uv venv -q --clear --python $(PYTHON) $(NEWEST)
	$(BIN)/uv pip install -q --python $(NEWEST)/bin/python -r requirements/newest.lock
	@touch $@
