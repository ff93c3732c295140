# Everything here works in the virtual environment .venv, which the first command makes.
# PYTHON chooses the interpreter: make quickstart PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install -c constraints.txt
# As many test processes as fit two cores; one arithmetic thread each. Each takes half of the files, and later from the
# other's end, so that what the tests of a file share is mostly made once.
TEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest

.PHONY: quickstart test test-browser lint docs clean

quickstart: $(VENV)/.package
	$(VENV)/bin/unipref align quickstart

test: $(VENV)/.dev
	$(TEST) -n 2 --dist worksteal -m "not browser"

test-browser: $(VENV)/.browser
	$(TEST) -m browser tests

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .

# Strict: a link that leads nowhere, or a page outside the navigation, is an error.
docs: $(VENV)/.docs
	$(VENV)/bin/sphinx-build -n -W --keep-going -q -d build/doctrees docs site
	@echo "the site: site/index.html"

clean:
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# PyTorch goes first and alone, so that a CPU-only build that is already at hand is the one that is taken.
$(VENV)/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "unipref needs Python 3.10 or newer; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "Python's venv module is missing; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(INSTALL) torch
	@touch $@

$(VENV)/.package: $(VENV)/.torch pyproject.toml
	$(INSTALL) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.package
	$(INSTALL) -e ".[dev]"
	@touch $@

$(VENV)/.browser: $(VENV)/.dev
	$(INSTALL) -e ".[dev,browser]"
	@touch $@

$(VENV)/.docs: $(VENV)/.package
	@$(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "the site needs Python 3.11 or newer: make clean, then make docs PYTHON=python3.12"; exit 1; }
	$(INSTALL) -e ".[docs]"
	@touch $@
