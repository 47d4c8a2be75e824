# Every target makes its own virtual environment when there is none. Needs Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := requirements/dev.txt

FUZZ_VENV ?= .venv-fuzz
FUZZ_STAMP := $(FUZZ_VENV)/.installed
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?=
FUZZ_RUNS ?=

# Bytecode is kept, whatever the environment says: the tests start a hundred processes, which would each compile it anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test lint fmt bench fuzz test-cluster proto lock clean

help:
	@echo "make demo          a recorded Tetragon stream through the collector into an OTLP receiver, on screen"
	@echo "make test          lint, types, import contracts and the tests (under three minutes on two cores)"
	@echo "make lint | fmt    only the checks | format the code"
	@echo "make bench         throughput, latency, growth and memory, as ratios within one run"
	@echo "make fuzz          coverage-guided fuzzing of all that reads bytes from outside, a minute each (FUZZ_SECONDS=60)"
	@echo "make test-cluster  the tests against real components: Kubernetes, OpenTelemetry Collector, Loki (needs Go)"
	@echo "make proto | lock  regenerate Tetragon's message modules | requirements/*.txt"

$(STAMP): $(LOCK) pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Keytrail needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/keytrail demo

test: lint
	$(BIN)/python -m pytest -n 3 --dist loadgroup

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)
	$(BIN)/python tests/bench/run.py

# FUZZ_TARGETS="http2 redact" runs only these. CONTRIBUTING.md says what each asserts, and how to repeat a crash.
fuzz: $(FUZZ_STAMP)
	PYTHONPATH=tests:collector/src $(FUZZ_VENV)/bin/python -m fuzz --seconds $(FUZZ_SECONDS) $(addprefix --runs ,$(FUZZ_RUNS)) $(FUZZ_TARGETS)

# An environment of its own: the fuzzer has wheels for less than Keytrail runs on.
$(FUZZ_STAMP): requirements/fuzz.txt
	$(PYTHON) tests/fuzz/interpreter.py
	test -x $(FUZZ_VENV)/bin/python || $(PYTHON) -m venv $(FUZZ_VENV)
	$(FUZZ_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary atheris --require-hashes -r requirements/fuzz.txt
	touch $(FUZZ_STAMP)

# Real components, built once into ~/.cache/keytrail-tests (or KEYTRAIL_TEST_CACHE): the first time takes many minutes.
test-cluster: $(STAMP)
	PYTHONPATH=tests $(BIN)/python -m support.components build
	$(BIN)/python -m pytest --cluster

proto: $(STAMP)
	$(BIN)/python -m grpc_tools.protoc --proto_path=collector/src --python_out=collector/src --pyi_out=collector/src \
	  collector/src/keytrail/proto/tetragon/*.proto

# Needs uv (https://docs.astral.sh/uv/) on the PATH or as UV=...; hashes of every platform's wheels, no registry host.
UV ?= uv
LOCKFLAGS := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate
lock:
	$(UV) pip compile $(LOCKFLAGS) pyproject.toml --extra demo --extra kubernetes -o requirements/collector.txt
	$(UV) pip compile $(LOCKFLAGS) pyproject.toml --extra demo --extra operator -o requirements/image.txt
	$(UV) pip compile $(LOCKFLAGS) pyproject.toml --extra demo --extra kubernetes --extra operator --group dev requirements/build.in -o requirements/dev.txt
	$(UV) pip compile $(LOCKFLAGS) requirements/build.in -o requirements/build.txt
	$(UV) pip compile $(LOCKFLAGS) pyproject.toml --extra demo requirements/fuzz.in -o requirements/fuzz.txt

clean:
	rm -rf $(VENV) $(FUZZ_VENV) .fuzz build dist
