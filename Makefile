# make reproduce   set up and regenerate the whole paper at the scale that params.yaml names
# make test        unit and science tests, and the complete pipeline at scale smoke
PYTHON ?= python3
CORES ?= all
BIN := .venv/bin
export PYTHONDONTWRITEBYTECODE ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup reproduce test lint docs emergence ui lock

help: ## say what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: .venv/.installed ## make .venv and install the locked versions (nothing to do the second time)

# Bytecode is compiled once here: without it every job spends seconds more on its imports.
.venv/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; ok = (3, 11) <= v[:2] <= (3, 13); ok or sys.exit(f"make: python3 is {v[0]}.{v[1]}; it must be 3.11 to 3.13; choose one with: make PYTHON=python3.12 ...")'
	@echo "make: installing the locked Python packages into .venv, about 6 GB; half of it is CUDA (without: docs/how-to.md)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
	$(BIN)/uv pip install --python $(BIN)/python --quiet --require-hashes --compile-bytecode -r requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q src
	@touch $@

reproduce: setup ## the whole paper: data, training, evaluation, figures, tables, reports/latest/paper.html
	$(BIN)/registers check
	@if [ -t 1 ]; then bars="--logger rich"; fi; $(BIN)/snakemake --cores $(CORES) $$bars
	@echo "The regenerated paper: reports/latest/paper.html   The runs behind it: make ui"

test: setup ## unit and science tests and the complete pipeline at scale smoke
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8

lint: setup ## style of Python and Snakemake files
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/ruff format --check src tests benchmarks docs/*.py docs/*.ipynb
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

ui: setup ## the MLflow UI on 127.0.0.1
	$(BIN)/registers ui

lock: setup ## renew requirements.lock from pyproject.toml
	$(BIN)/uv pip compile --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -q \
	  --extra test --extra bench --extra dev --extra slurm pyproject.toml -o requirements.lock

docs: setup ## docs/artifacts.md, docs/rulegraph.md, the settings' pages and the notebook, from the last run
	$(BIN)/python docs/build.py
	$(BIN)/python docs/notebook.py docs/science.ipynb
	$(BIN)/python -m registers.settings.document

emergence: setup ## the effect in minutes: small encoders without and with registers
	$(BIN)/snakemake --cores $(CORES) study_headline
