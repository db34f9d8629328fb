# Every target installs what it needs. You only need make and Python >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest

# Tests and the demo start many processes. One whose modules are compiled starts in two thirds of the time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test check docs fuzz proof bench bench-check fix lock generate release versitygw clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

ifdef WORKERS
demo: $(VENV)/.dev
	@$(BIN)/python -m tools.demo_workers --workers $(WORKERS) $(if $(STORE),--store $(STORE)) $(if $(KAFKA),--kafka $(KAFKA))
else
demo: $(VENV)/.demo  ## run three jobs and 10,000 events, and verify all results (WORKERS=4 STORE=s3: one job on four workers)
	@$(BIN)/python -m pipeline.sandbox.demo --out build
endif

test: $(VENV)/.dev  ## set up and run all tests, with coverage of lines and branches
	@mkdir -p build
	$(PYTEST) $(TRACED) --numprocesses logical --cov --cov-report=
	$(BIN)/python -m tools.coverage_gate
	$(PYTEST) tests $(TRACED:%=--ignore=%)
TRACED := tests/unit tests/contract tests/inputs

check: $(VENV)/.dev  ## run linters, type and import checks; check generated files, contracts and retired words
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.generate --check
	$(BIN)/python -m tools.compatibility
	$(BIN)/python -m tools.vocabulary

docs: $(VENV)/.docs  ## build the documentation site into build/site; fail on warnings and broken links
	$(BIN)/python -m sphinx --fresh-env --fail-on-warning --keep-going --quiet -b html -c tools/site docs build/site
	@echo "open build/site/index.html"

fuzz: $(VENV)/.dev  ## run the property tests with new examples (SECONDS=600, or HOURS=8; ARGS='-k splitter')
	$(BIN)/python -m tools.fuzz --seconds $(SECONDS) $(ARGS)
SECONDS := $(if $(HOURS),$(shell echo $$(($(HOURS) * 3600))),600)

proof: $(VENV)/.dev  ## 300 jobs and one of 1,000,000 cards on workers that join, leave and die, over S3 (ARGS='--jobs 50')
	$(BIN)/python -m tools.proof $(ARGS)

bench: $(VENV)/.bench  ## measure speed and memory against peers (PART='process http' selects suites); writes build/bench.json
	$(BIN)/python -m benchmarks $(PART)

bench-check: $(VENV)/.bench  ## the same, and fail if a row is below its committed floor; prints the worst row last
	$(BIN)/python -m benchmarks --check $(PART)

fix: $(VENV)/.dev  ## format, and fix what the linter can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: $(VENV)/.dev  ## write the generated files again (settings reference, topics, schemas)
	$(BIN)/python -m tools.generate

release: $(VENV)/.dev  ## take the contracts in schemas/ for released, unless one breaks what was released before
	$(BIN)/python -m tools.compatibility --release

lock: $(VENV)/.dev  ## compile the hashed requirements
	$(BIN)/uv pip compile $(LOCK) pyproject.toml -o requirements/subscriber.txt
	$(BIN)/uv pip compile $(LOCK) --extra server pyproject.toml -o requirements/server.txt
	$(BIN)/uv pip compile $(LOCK) --group pyproject.toml:build -o requirements/build.txt
	$(BIN)/uv pip compile $(LOCK) $(DEMO) pyproject.toml -o requirements/demo.txt
	$(BIN)/uv pip compile $(LOCK) $(DEMO) --group dev pyproject.toml -o requirements/dev.txt
	$(BIN)/uv pip compile $(LOCK) --group pyproject.toml:bench -c requirements/dev.txt -o requirements/bench.txt
	$(BIN)/uv pip compile $(LOCK) --group pyproject.toml:docs -c requirements/dev.txt -o requirements/docs.txt
DEMO := --extra server --extra embedded --group build
LOCK := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

versitygw:  ## build one more S3 server for the contract tests of the store (needs Go; takes minutes)
	GOBIN=$(CURDIR)/build/bin go install github.com/versity/versitygw/cmd/versitygw@v1.8.0

clean:  ## remove what was built and the environment
	rm -rf build dist $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage*

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python >= 3.11 is needed; $(PYTHON) is older. Name another: make PYTHON=python3.12 ..."; exit 2; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# --no-deps: the files are complete, and an older pip would resolve `coverage[toml]` again, to a version without a hash
$(VENV)/.demo: $(VENV)/bin/python requirements/demo.txt pyproject.toml
	@echo "installing the pinned requirements (once)"
	@$(PIP) install --no-deps --require-hashes -r requirements/demo.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python requirements/dev.txt pyproject.toml
	@echo "installing the pinned development requirements (once)"
	@$(PIP) install --no-deps --require-hashes -r requirements/dev.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.demo

$(VENV)/.bench: $(VENV)/.dev requirements/bench.txt
	@echo "installing the pinned peers of the benchmarks (once)"
	@$(PIP) install --no-deps --require-hashes -r requirements/bench.txt
	@touch $@

$(VENV)/.docs: $(VENV)/.dev requirements/docs.txt
	@echo "installing the pinned requirements of the documentation site (once)"
	@$(PIP) install --no-deps --require-hashes -r requirements/docs.txt
	@touch $@
