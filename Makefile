# Everything a newcomer needs: `make demo`, then `make test`.
PYTHON ?= python3
BIN := .venv/bin
STORE ?= demo

.PHONY: install demo test check ui clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --compile-bytecode --editable '.[dev]'
	touch $@

# Search a VAE's latent dimension, learning rate and KL weight on scikit-learn's digits.
demo: install
	$(BIN)/genpipe search vae --data digits --trials 6 --epochs 100 --grace-period 15 \
		--batch-size 32 --picture-every 25 --store $(STORE)

test: install
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

ui: install
	$(BIN)/genpipe browse --store $(STORE)

clean:
	rm -rf .venv demo runs
