"""Search space of the VAE. Trials are ranked by the importance-weighted bound on -log p(x),
which does not contain the searched KL weight: by the training loss the smallest weight would
rank best."""

from tune_spaces import Space

SPACE = Space(
    domains={
        "model": {
            "latent_dim": "choice([4, 8, 12, 16, 24, 32])",
            "kl_weight": "loguniform(0.25, 4.0)",
        },
        "optim": {"lr": "loguniform(3e-4, 1e-2)"},
    },
    metric="val/nll",
    mode="min",
    epochs=20,
    grace_period=3,
    measures={"likelihood": "bernoulli", "conditional": False},
)
