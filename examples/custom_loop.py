"""Train a VAE with gen_models alone: a loop of your own, without Ray, MLflow and the command line.

python examples/custom_loop.py
"""

from pathlib import Path

import torch

from gen_models import DataSpec, Learner, vae
from gen_models.core.sampling import sample
from gen_models.training.batches import TrainingImages
from pipelines.data import load
from pipelines.data.batches import as_batch

EPOCHS = 24

torch.set_num_threads(1)
digits = load("digits", Path("data"))
data = TrainingImages(as_batch(digits.part("train")), batch_size=64, drop_last=True)

# A family's Model holds the computations, a Learner the weights, optimizers and position.
model = vae.Model(vae.Config(latent_dim=8, hidden=(128,)), DataSpec((1, 8, 8), num_classes=10))
learner = Learner(model, vae.Optim(lr=3e-3), seed=0, steps_per_epoch=data.steps_per_epoch)

for epoch in range(1, EPOCHS + 1):
    for batch, share in data.batches(learner.seed, epoch):
        learner.step(batch, share)
    metrics = learner.pop_metrics()  # means since the last call
    if epoch % 4 == 0:
        print(f"epoch {epoch:>2}  " + "  ".join(f"{k} {v:.2f}" for k, v in metrics.items()))

# A sample as text: 8 x 8 pixels, five shades.
(image,) = sample(model, learner.sampling_networks(), num=1, seed=0)
for row in image[0]:
    print("".join(" .:*#"[min(int(5 * value), 4)] * 2 for value in row.tolist()))
