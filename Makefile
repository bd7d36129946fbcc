# Everything a newcomer needs: `make demo`, then `make test`.
PYTHON ?= python3
BIN := .venv/bin
STORE ?= demo

.PHONY: install demo test test-slow test-fast test-long test-faults test-browser check audit docs bench bench-gpu ui clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --compile-bytecode --editable '.[dev]'
	touch $@

# Search a VAE's latent dimension, learning rate and KL weight on scikit-learn's digits.
demo: install
	$(BIN)/genpipe search vae --data digits --trials 24 --epochs 60 --grace-period 6 \
		--batch-size 32 --store $(STORE)

# Tests that start Ray or a server wait most of their time, so the others run beside them. One thread:
# on a busy machine the threads of small operations wait for each other.
test test-slow test-fast test-long test-faults test-browser check: export OMP_NUM_THREADS = 1

test: install
	@$(MAKE) --no-print-directory --jobs=2 test-slow test-fast

test-slow: install
	$(BIN)/python -m pytest -m "slow and not long and not faults"

test-fast: install
	$(BIN)/python -m pytest -m "not slow and not faults" tests/unit

# The longer suite: the wheel, families of other packages, stores of older versions, the public
# functions, job files, the examples, the benchmarks on small inputs.
test-long: install
	$(BIN)/python -m pytest -m long

# Real processes that are killed, files that are damaged, resources that are taken away
# (docs/reliability.md).
test-faults: install
	$(BIN)/python -m pytest -m faults

# MLflow's pages of a search of each family and of one of 1,000 trials, in Chromium.
test-browser: install
	$(BIN)/python -m pytest -m browser tests/browser

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml gen_models pipelines tune_spaces genpipe.py
	$(BIN)/python -m pytest -q tests/unit/test_architecture.py tests/unit/test_docs.py

# Look up the pinned packages in the Python advisory database, which needs a network: CI does it
# apart from `make check`, which needs none.
audit: install
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip --progress-spinner off \
		|| { echo "audit: a package has a known vulnerability, or pypi.org does not answer (above)" >&2; exit 1; }

# Write what docs/ has of the code: the JSON schema of results, and the pictures.
docs: install
	$(BIN)/python -m docs.generate

# The figures of benchmarks/README.md that need no GPU: two and a half hours, and MNIST under
# GENPIPE_DATA_ROOT. Let nothing else run.
bench: install .venv-bench/installed
	$(BIN)/python -m benchmarks.search_throughput --ideal
	$(BIN)/python -m benchmarks.many_trials
	$(BIN)/python -m benchmarks.search_quality
	$(BIN)/python -m benchmarks.catalog
	$(BIN)/python -m benchmarks.terminal
	$(BIN)/python -m benchmarks.report
	$(BIN)/python -m benchmarks.mlflow_pages
	$(BIN)/python -m benchmarks.overheads
	$(BIN)/python -m benchmarks.train_throughput
	$(BIN)/python -m benchmarks.ddp_scaling
	$(BIN)/python -m benchmarks.metrics_throughput
	$(BIN)/python -m benchmarks.likelihood_throughput
	$(BIN)/python -m benchmarks.precision
	$(BIN)/python -m benchmarks.papers.lenet_mnist
	$(BIN)/python -m benchmarks.papers.prdc_gaussians
	$(BIN)/python -m benchmarks.papers.distances_gaussians
	$(BIN)/python -m benchmarks.papers.mixtures
	$(BIN)/python -m benchmarks.papers.stacked_mnist

# The figures of a GPU, half an hour of one. trials_gpu wants MNIST under GENPIPE_DATA_ROOT.
bench-gpu: install
	$(BIN)/python -m benchmarks.precision --device cuda --execution vectorised --curves
	$(BIN)/python -m benchmarks.fused_gpu
	$(BIN)/python -m benchmarks.train_gpu
	$(BIN)/python -m benchmarks.metrics_gpu
	$(BIN)/python -m benchmarks.trials_gpu

# pythae and Lightning, for benchmarks/train_throughput.py.
.venv-bench/installed: benchmarks/requirements.txt | install
	$(PYTHON) -m venv .venv-bench
	$(BIN)/uv pip install --quiet --python .venv-bench/bin/python --requirement $<
	touch $@

ui: install
	$(BIN)/genpipe browse --store $(STORE)

clean:
	rm -rf .venv .venv-bench demo runs
