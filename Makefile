# `make demo` and `make test` do everything from a clean clone, each making its environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test check docs format soak licences clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/unicross demo

test: $(VENV)/.installed
	$(BIN)/pytest

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The site of the documents, in build/site; a broken link is an error.
docs: $(VENV)/.installed
	$(BIN)/mkdocs build --strict

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Half an hour of indexing, serving, searching, kills and full disks; see tests/soak.py.
soak: $(VENV)/.installed
	$(BIN)/python tests/soak.py --minutes 30

# The licence of every installed package, as the packages say it.
licences: $(VENV)/.installed
	$(BIN)/python tests/licences.py

clean:
	rm -rf $(VENV) runs build .pytest_cache .mypy_cache .ruff_cache
