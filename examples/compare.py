"""Load the champion of a search: sample, reconstruct and encode with it.

python examples/search.py && python examples/compare.py
"""

from pathlib import Path

import torch

import genpipe
from pipelines.data import load

model = genpipe.load("vae-digits@champion", store="runs")
digits = torch.from_numpy(load("digits", Path("data")).test[:200]) / 255

codes = model.encode(digits)
reconstructions = model.reconstruct(digits)
samples = model.sample(200)

error = (reconstructions - digits).square().flatten(1).sum(1)
blank = (digits.mean(0) - digits).square().flatten(1).sum(1)
print(f"codes of {len(codes)} test digits: {tuple(codes.shape)}")
print(f"squared error of a reconstruction: {error.mean():.2f}")
print(f"squared error of the mean digit:   {blank.mean():.2f}")

# Which dimensions of the code does the decoder use? Those whose values differ between images.
used = codes.std(0) > 0.3
print(f"dimensions in use: {int(used.sum())} of {len(used)}")

for name, images in (("test digits", digits), ("samples", samples)):
    print(f"mean intensity of {name}: {images.mean():.3f}, deviation {images.std():.3f}")

result = genpipe.sample("vae-digits@champion", num=64, out="samples.png", store="runs")
print(f"a grid of {result.num} samples: {result.path}")
