# Every target makes .venv and installs what it needs by itself, once; a changed pyproject.toml installs again.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint gpu clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed  ## the tour on embedded data: no further download, no GPU; ends with a report to look at
	@$(BIN)/debias demo --out $(DEMO)

test: $(VENV)/.installed-dev  ## the fast tests, some minutes on two cores
	@$(BIN)/python -m pytest -q

test-slow: $(VENV)/.installed-dev  ## the tests of minutes each
	@$(BIN)/python -m pytest -q -m "slow and not gpu"

lint: $(VENV)/.installed-dev  ## ruff and mypy
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

gpu: $(VENV)/.installed-dev  ## the tests and measurements that need CUDA, in ten minutes at most, into benchmarks/gpu.md
	@$(BIN)/python benchmarks/gpu.py

clean:  ## remove .venv, the demo and what the tools cache
	@rm -rf $(VENV) $(DEMO) build dist debias.egg-info .pytest_cache .mypy_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# $(1): what pip installs. A .venv that was cut short while it was made has no pip and is made again.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than Python 3.11; name another: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "Installing $(1) into $(VENV), once; torch is some gigabytes, so this takes minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e $(1)
endef

$(VENV)/.installed: pyproject.toml
	$(call install,.)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml
	$(call install,'.[dev$(comma)timm$(comma)detection$(comma)webdataset$(comma)corruptions$(comma)onnx]')
	@touch $@ $(VENV)/.installed  # the tests need all that the demo needs

comma := ,
