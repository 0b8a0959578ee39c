# `make demo`, `make test`, `make test-all`, `make docs`; everything lives in .venv, which is made when absent.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A process per core, each with whole files, whose fixtures are then made once.
PYTEST := $(VENV)/bin/python -m pytest -rs -n auto --maxprocesses 4 --dist loadfile
STAMP := $(VENV)/.installed

.PHONY: demo test test-all lint docs install

demo: $(STAMP)
	exec env VISREP_PARENT=$$PPID $(BIN)/visrep demo

test: $(STAMP) lint
	$(PYTEST)

test-all: $(STAMP) lint
	$(PYTEST) -m ''

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site in site/; a test builds it too.
docs: $(STAMP)
	PYTHONPATH=. $(BIN)/mkdocs build --strict

install: $(STAMP)

# Editable, so that a change needs no new install; nothing beside it is upgraded.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,export,fast-eval]'
	touch $@
