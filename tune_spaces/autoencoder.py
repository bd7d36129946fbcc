"""Search space of the autoencoder. Trials are ranked by the validation squared error without input
noise, which contains no searched weight."""

from ray import tune

from tune_spaces import Space

SPACE = Space(
    domains={
        "model": {
            "latent_dim": tune.choice([4, 8, 12, 16, 24, 32]),
            "noise_std": tune.uniform(0.0, 0.3),
        },
        "optim": {"lr": tune.loguniform(3e-4, 1e-2)},
    },
    metric="val/squared_error",
    mode="min",
    epochs=20,
    grace_period=3,
)
