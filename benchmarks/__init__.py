"""How fast genpipe is, against what one would otherwise use: see `benchmarks/README.md`."""
