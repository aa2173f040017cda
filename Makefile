# One obvious line for each thing a newcomer wants to do. Everything happens inside .venv.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help install demo test thorough check bench docs wheel clean
help:            ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/'

install: $(STAMP) ## a virtual environment with everything (the only step that needs a package index)
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)   ## the main job: 6 sites, 3 stages, privacy on; beside it noise at each site, and no guard
	$(BIN)/llmchain-fl simulate demo --beside 'privacy.noise="site"' --beside 'continual.guards=[]'

test: check      ## every check and every test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not flower and not thorough"
	$(BIN)/python -m pytest -n 3 --dist loadfile -m "flower and not thorough"

thorough: check  ## everything, to the end of every table, with eight times the examples (hours)
	$(BIN)/python -m pytest -n 2 --dist worksteal --hypothesis-profile thorough -m "not flower"
	$(BIN)/python -m pytest -n 3 --dist loadfile -m flower

check: $(STAMP)  ## ruff, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)  ## every benchmark (hours); each prints one table and writes one JSON under benchmarks/out
	set -e; for script in benchmarks/bench_*.py; do $(BIN)/python $$script; done

docs: $(STAMP)   ## write the pages that are made from the code
	$(BIN)/python docs/make_pages.py

wheel: $(STAMP)  ## build the wheel
	$(BIN)/python -m build --wheel

clean:           ## forget environment, caches and builds (never runs/)
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
