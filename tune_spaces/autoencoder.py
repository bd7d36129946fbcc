"""Search space of the autoencoder. Trials are ranked by the validation squared error without input
noise, which contains no searched weight."""

from tune_spaces import Space

SPACE = Space(
    domains={
        "model": {
            "latent_dim": "choice([4, 8, 12, 16, 24, 32])",
            "noise_std": "uniform(0.0, 0.3)",
        },
        "optim": {"lr": "loguniform(3e-4, 1e-2)"},
    },
    metric="val/squared_error",
    mode="min",
    epochs=20,
    grace_period=3,
)
