"""Search a VAE's latent dimension, KL weight and learning rate, and look at the ranking.

python examples/search.py
"""

import genpipe

# The same as `genpipe search vae --data digits --trials 8 …`. Everything is recorded below ./runs.
result = genpipe.search(
    "vae",
    data="digits",
    trials=8,
    epochs=6,
    grace_period=2,
    batch_size=64,
    model={"hidden": (128,)},
    store="runs",
)

print(f"\nranked by {result.metric} ({result.mode}):")
for row in result.ranking:
    config = "  ".join(f"{name}={value:.3g}" for name, value in row.config.items())
    value = "none" if row.value is None else f"{row.value:.2f}"
    print(f"  trial {row.trial_id}  {value:>6}  {row.epochs} epochs, {row.outcome}  {config}")

champion = result.champion
print(f"\nchampion: trial {champion.trial_id}, epoch {champion.best_epoch}")
print(f"its samples: {result.samples}")
print("to see all curves and pictures: genpipe browse --store runs")
