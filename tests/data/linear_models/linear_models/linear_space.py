"""The search space of the linear models."""

from ray import tune

from tune_spaces import Space

SPACE = Space(
    domains={
        "model": {"latent_dim": tune.choice([2, 4, 8])},
        "optim": {"lr": tune.loguniform(1e-3, 1e-1)},
    },
    metric="val/squared_error",
    mode="min",
    epochs=3,
    grace_period=1,
)
