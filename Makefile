# Everything a newcomer needs: `make demo`, then `make test`.
PYTHON ?= python3
BIN := .venv/bin
STORE ?= demo

.PHONY: install demo test test-slow test-fast bench bench-gpu check ui clean

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

# What starts Ray or a server waits most of its time, so the rest runs beside it.
test: install
	@$(MAKE) --no-print-directory --jobs=2 test-slow test-fast

test-slow:
	$(BIN)/python -m pytest -m slow

test-fast:
	$(BIN)/python -m pytest -m "not slow"

# The figures of benchmarks/README.md that need no GPU: two hours, and MNIST under
# GENPIPE_DATA_ROOT. Let nothing else run.
bench: install .venv-bench/installed
	$(BIN)/python -m benchmarks.search_throughput --ideal
	$(BIN)/python -m benchmarks.many_trials
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

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

ui: install
	$(BIN)/genpipe browse --store $(STORE)

clean:
	rm -rf .venv .venv-bench demo runs
