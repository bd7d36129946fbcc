# Everything a newcomer needs: `make demo`, then `make test`.
PYTHON ?= python3
BIN := .venv/bin
STORE ?= demo

.PHONY: install demo test check ui clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@

# Search a VAE's latent dimension, learning rate and KL weight on scikit-learn's digits.
demo: install
	$(BIN)/genpipe search vae --data digits --trials 8 --epochs 60 --grace-period 10 \
		--batch-size 32 --picture-every 20 --store $(STORE)

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
