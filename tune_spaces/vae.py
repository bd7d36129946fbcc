"""The VAE's search space. Ranked by the importance-weighted bound on -log p(x), whatever KL weight
it was trained with: a loss that holds the searched weight would make the smallest weight win."""

from ray import tune

from tune_spaces import Space

SPACE = Space(
    domains={
        "model": {
            "latent_dim": tune.choice([4, 8, 12, 16, 24, 32]),
            "kl_weight": tune.loguniform(0.25, 4.0),
        },
        "optim": {"lr": tune.loguniform(3e-4, 1e-2)},
    },
    metric="val/nll",
    mode="min",
    epochs=20,
    grace_period=3,
)
