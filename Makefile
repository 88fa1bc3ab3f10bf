# `make test` and `make demo` need Python 3.11 to 3.13 and make, and set up the rest in .venv.
# PYTHON=python3.12 chooses the interpreter; ARGS="--effort 15" passes arguments to the demo.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
BACKENDS_STAMP := $(VENV)/.backends_installed
SITE_STAMP := $(VENV)/.site_installed
BENCH_VENV := build/bench-venv
BENCH_STAMP := $(BENCH_VENV)/.installed
BENCH := $(BENCH_VENV)/bin/python
BENCH_PIP := $(BENCH) -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
PIP    := $(BIN)/python -m pip --disable-pip-version-check
ARGS   ?=
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
# The tests are bound by compiling models, which uses one core each. A file's tests share what they
# train, so they stay in one process.
WORKERS ?= 2
# Files whose slow tests CI runs too, after all else: a few minutes. Before a file is added, its slow
# tests are to be run and measured.
LONG ?= tests/executors/test_interrupts.py tests/fusion/test_chain.py \
    tests/fusion/test_counted_fits.py tests/test_docs.py
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -q

# Whatever environment is active, only ours counts.
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help install demo test test-all lint format types layers tests \
    tests-long tests-slow tests-backends tests-jax tests-torch bench bench-full site package clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

install: $(STAMP)  ## set up .venv

demo: $(STAMP)  ## prune, distil and fuse a small network on handwritten digits
	$(BIN)/saikei demo $(ARGS)

test: lint layers  ## style, types, architecture, and the quick tests, on TensorFlow
	@$(MAKE) --no-print-directory -j2 types tests

test-all: test tests-backends tests-long tests-slow  ## the same, JAX and torch, and all other tests

lint: $(STAMP)  ## check style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: $(STAMP)  ## fix style and formatting
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: $(STAMP)  ## check types
	$(BIN)/mypy

layers: $(STAMP)  ## check that dependencies point one way
	$(BIN)/lint-imports

# The networks are small: a process needs no more than its own core.
tests tests-long tests-slow: export TF_NUM_INTRAOP_THREADS ?= 1

tests: $(STAMP)  ## run the quick tests
	$(PYTEST)

tests-long: $(STAMP)  ## run further cases, and those of the slow tests that CI has the time for
	$(PYTEST) -m "long and not slow"
	$(PYTEST) -m slow $(LONG)

tests-slow: $(STAMP)  ## run the slow tests
	$(PYTEST) -m slow

# Keras chooses its backend once in a process. XLA optimises little here, and torch has one thread
# in each of the workers: the networks are small, and compiling them is what takes time.
tests-backends: tests-jax tests-torch  ## add JAX and torch to .venv, and run on them what depends on the backend

tests-jax tests-torch: export XLA_FLAGS ?= --xla_backend_optimization_level=0
tests-jax tests-torch: export OMP_NUM_THREADS ?= 1
tests-jax tests-torch: tests-%: $(BACKENDS_STAMP)
	KERAS_BACKEND=$* $(PYTEST) -m "backends and not slow"

# In an environment of their own, with all that is compared with: some gigabytes. Each target writes
# benchmarks/results/ and the tables of docs/benchmarks.md from them. aeon is wanted for its data
# alone: its code needs an older NumPy.
bench: $(BENCH_STAMP)  ## one seed of a small job and the short benchmarks: at most 20 minutes, once set up
	$(BENCH) benchmarks/jobs.py vowels --seeds 1
	$(BENCH) benchmarks/ensemble_selection.py --no-large --runs 3
	$(BENCH) benchmarks/explain.py
	$(BENCH) benchmarks/fused_throughput.py --runs 7
	$(BENCH) benchmarks/merging.py --megabytes 64 --tensor 16 --runs 3
	$(BENCH) benchmarks/pruning_speed.py ResNet50 MobileNetV2 --runs 3
	$(BENCH) benchmarks/speedup.py MobileNetV2 --size 96 --multiples 8 16 --runs 3
	$(BENCH) benchmarks/scaling.py --no-search --runs 1
	$(BENCH) benchmarks/record.py

bench-full: $(BENCH_STAMP)  ## all benchmarks against their peers, three seeds of each job; takes a day
	@$(BENCH_PIP) --no-build-isolation --editable '.[kerashub]'
	$(BENCH) benchmarks/jobs.py all --seeds 3
	$(BENCH) benchmarks/job_bounds.py images signals letter osuleaf vowels bbc movies
	for figure in 'p2 --data mnist1d' 'p2 --data fashion' 'p8 --data mnist1d' 'p8 --data fashion' \
	    'p9 --data mnist1d-4000' 'p10 --data mnist1d-4000'; do \
	    $(BENCH) benchmarks/search.py $$figure --seeds 3 --rows build/search.jsonl \
	        --folder build/search-runs || exit 1; done
	for what in 'quality --seeds 0 1 2 3 4' 'surgery 30M 125M 1B-' growth 'generation 30M'; do \
	    $(BENCH) benchmarks/large.py $$what || exit 1; done
	for script in accuracy_before_training cascade ensemble_selection explain fused_throughput \
	    fusion_quality merging pruning_speed speedup scaling; do $(BENCH) benchmarks/$$script.py || exit 1; done
	$(BENCH) benchmarks/search_library.py front ranks library share --seeds 1 3 --sizes 64 224 --every 13
	$(BENCH) benchmarks/coverage.py --rows build/coverage.jsonl --markdown docs/coverage.md
	$(BENCH) benchmarks/coverage_torch.py --rows build/coverage_torch.jsonl
	$(BENCH) benchmarks/tried.py --rows build/tried.jsonl --markdown docs/tried.md
	$(BENCH) benchmarks/record.py

site: $(SITE_STAMP)  ## build the documentation in build/site; a warning is an error
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -d build/doctrees docs build/site

# Away from the sources, so that what the wheel lacks is missed.
package: $(STAMP)  ## build the sdist and the wheel, and run the demo from the wheel
	rm -rf dist build/wheel
	$(BIN)/python -m hatchling build
	@$(PIP) install --quiet --no-deps --target build/wheel dist/*.whl
	PYTHONPATH=$(CURDIR)/build/wheel $(BIN)/python -c "import saikei; assert 'wheel' in saikei.__file__"
	PYTHONPATH=$(CURDIR)/build/wheel $(BIN)/saikei demo --out build/demo-run $(ARGS)

clean:  ## remove .venv and caches
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last: a set-up that was cut short goes on where it stopped.
$(STAMP): pyproject.toml constraints.txt
	@if ! $(PIP) --version >/dev/null 2>&1; then \
	    for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
	        if $$python -c '$(SUPPORTED)' 2>/dev/null; then found=$$python; break; fi; \
	    done; \
	    if [ -z "$$found" ]; then \
	        echo "No Python 3.11 to 3.13 found: install one, or name it with PYTHON=…" >&2; exit 1; \
	    fi; \
	    echo "Setting up $(VENV) with $$($$found --version); this takes a few minutes, once"; \
	    $$found -m venv --clear $(VENV); \
	fi
	@$(PIP) install --quiet --constraint constraints.txt editables hatchling
	@$(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable '.[tensorflow,onnx,int8,dev]'
	@touch $@

# What follows is not needed to use Saikei, nor for the demo: so it is no part of `make install`.
$(SITE_STAMP): $(STAMP)
	@echo "Adding Sphinx to $(VENV)"
	@$(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable '.[tensorflow,onnx,int8,dev,docs]'
	@touch $@

$(BENCH_STAMP): $(STAMP)
	@echo "Setting up $(BENCH_VENV) with the libraries to compare with"
	@$(BIN)/python -m venv --clear $(BENCH_VENV)
	@$(BENCH_PIP) editables hatchling
	@$(BENCH_PIP) --no-build-isolation --editable '.[tensorflow,onnx,int8,benchmarks,tried]'
	@$(BENCH_PIP) --no-deps aeon
	@touch $@

$(BACKENDS_STAMP): $(STAMP)
	@echo "Adding JAX and torch to $(VENV)"
	@$(PIP) install --quiet --constraint constraints.txt --no-build-isolation --editable '.[tensorflow,onnx,int8,dev,jax,torch]'
	@touch $@
