"""Search space of the GAN. Trials are ranked by a Fréchet distance of samples to validation
images, because the losses of the two networks do not measure the quality of samples."""

from tune_spaces import Space

SPACE = Space(
    domains={
        "model": {"latent_dim": "choice([16, 32, 64, 128])"},
        "optim": {
            "discriminator": {"lr": "loguniform(5e-5, 1e-3)"},
            "generator": {"lr": "loguniform(5e-5, 1e-3)"},
        },
    },
    metric="val/fd",
    mode="min",
    epochs=30,
    grace_period=5,
    measures={"conditional": False},
)
