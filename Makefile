# make demo   install s2cube here, run the main job on a simulated archive, offline
# make test   install what tests need, run them
# make docs   install what the documentation needs, build it as a site in site/

PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test docs clean

demo: $(VENV)/installed
	$(VENV)/bin/s2cube demo --out s2cube-demo

test: $(VENV)/tests-installed
	$(VENV)/bin/python -m pytest

docs: $(VENV)/docs-installed
	$(VENV)/bin/python -m mkdocs build --strict

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "s2cube wants Python 3.11 or later; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "This Python cannot make virtual environments (on Debian: apt install python3-venv)"; rm -rf $(VENV); exit 1; }

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) --editable .
	@touch $@

$(VENV)/tests-installed: $(VENV)/installed
	$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/docs-installed: $(VENV)/installed
	$(PIP) --editable '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) s2cube-demo site
