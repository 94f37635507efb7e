# make demo    everything a user needs, then the main job on the built-in pictures
# make check   everything a developer needs, then every check and test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo check slow wheel format clean

demo: $(VENV)/.installed
	$(BIN)/swav demo

check: $(VENV)/.developed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sphinx-build -W -q -b html docs build/docs
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

slow: $(VENV)/.developed
	$(BIN)/pytest -m slow

wheel: $(VENV)/.developed
	$(BIN)/pytest -m slow tests/e2e/test_wheel.py

format: $(VENV)/.developed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV)

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(PIP) --editable .
	touch $@

$(VENV)/.developed: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(PIP) --editable . --requirement requirements-dev.txt
	touch $(VENV)/.installed $@
