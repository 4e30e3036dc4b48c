# make demo         install s2cube in .venv, then run a job on a simulated archive, offline
# make check        check format, lint, types and the order of imports, in seconds; every commit must pass
# make test-quick   run the quick tests, which need no servers, on all cores
# make test         run all tests
# make docs         install the documentation tools, then build the documentation as a site in site/
# make clean        delete .venv, s2cube-demo/ and site/

PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PYTEST = $(VENV)/bin/python -m pytest
QUICK = $(PYTEST) tests -m "not servers and not slow" --numprocesses auto --dist worksteal --durations 5

.PHONY: demo check test-quick test docs clean

demo: $(VENV)/installed
	$(VENV)/bin/s2cube demo --out s2cube-demo

check: $(VENV)/tests-installed
	$(VENV)/bin/python -m ruff format --check .
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m mypy
	$(PYTEST) --quiet tests/test_house.py -m "not slow"

test-quick: $(VENV)/tests-installed
	$(QUICK)

# The other tests run in one process, because they share a Dask cluster, PostgreSQL and SLURM.
test: $(VENV)/tests-installed
	$(QUICK)
	$(PYTEST) -m "servers or slow"

docs: $(VENV)/docs-installed
	$(VENV)/bin/python -m mkdocs build --strict

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "s2cube needs Python 3.11 or later. Name it, for example: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "This Python cannot create virtual environments (on Debian: apt install python3-venv)"; rm -rf $(VENV); exit 1; }

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing s2cube in $(VENV) (about a minute)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/tests-installed: $(VENV)/installed
	@echo "installing the tools of the tests in $(VENV) (some minutes)"
	@$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/docs-installed: $(VENV)/installed
	@echo "installing the tools of the documentation in $(VENV) (about a minute)"
	@$(PIP) --editable '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) s2cube-demo site
