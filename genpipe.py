"""genpipe: train families of generative models on a Ray cluster, search their hyperparameters, and
record everything in MLflow.

>>> import genpipe
>>> result = genpipe.search("vae", data="digits", trials=24, store="runs")
>>> model = genpipe.load("vae-digits@champion", store="runs")

`help(genpipe.search)` and the README say more.
"""

from typing import Any

import pipelines
from pipelines import InputError, __all__, __version__  # noqa: F401


def __getattr__(name: str) -> Any:
    return pipelines.__getattr__(name)  # `pipelines.report` itself is a package
