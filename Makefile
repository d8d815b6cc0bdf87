# Every target sets up .venv itself; the first one to run takes the time of the installation.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# What builds the site has an environment of its own, without the package: its docstrings are read and not run.
SITE := .venv-site
# make test TESTS=tests/cli
TESTS ?= tests
# How many processes test side by side: as many as there are cores, four at the most.
JOBS ?= auto
PARALLEL := -n $(JOBS) --maxprocesses 4 --dist worksteal

# Where this is set every process that a test starts compiles the whole package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test quick lint types site clean

help:
	@echo "make demo    compress a small network for handwritten digits into out/demo"
	@echo "make test    run all tests, in some minutes"
	@echo "make quick   run a fair part of them, in less than one"
	@echo "make lint    check style"
	@echo "make types   check types"
	@echo "make site    build the documentation into out/site, without warnings"
	@echo "make clean   remove .venv and the caches"

demo: $(VENV)/.package
	$(BIN)/onnxadmm demo --out out/demo --force

test: $(VENV)/.developer
	$(BIN)/python -m pytest $(PARALLEL) $(TESTS)

# While one works: no slow test, and of each test with many cases two.
quick: $(VENV)/.developer
	$(BIN)/python -m pytest $(PARALLEL) -q -m "not slow" --cases 2 $(TESTS)

lint: $(VENV)/.developer
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.developer
	$(BIN)/mypy onnxadmm samples benchmarks docs/hooks.py .ci/absolute_links.py tests/smoke.py

site: $(SITE)/.installed
	NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --strict
	@echo "out/site/index.html; for its search: $(SITE)/bin/python -m http.server --directory out/site"

clean:
	rm -rf $(VENV) $(SITE) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Dependency groups are known to pip from 25.1 on.
$(SITE)/.installed: pyproject.toml
	$(PYTHON) -m venv $(SITE)
	$(SITE)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(SITE)/bin/python -m pip install --quiet --group docs
	@touch $@

$(VENV)/.package: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.developer: pyproject.toml $(VENV)/.package
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@
