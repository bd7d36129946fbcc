"""THE rule for what may be compared: values of runs are ranked together, and models take an alias
from each other, only where the comparison keys are equal.

The key names the family, the digest of the data (which follows from every image, so from their
size and number, and from the splits), the settings on which it depends what is measured (of a VAE
the likelihood, and whether it is class-conditional), whether evaluation is on binary pixels, and
the metric, whose name says its split, its feature space and its numbers of samples and images.

It is recorded as a tag when a run starts, and follows from the parameters and tags of runs of
older versions, which do not have it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from gen_models.core.errors import InputError
from pipelines.evaluation.metric_names import described
from tune_spaces import space

KEY = "comparable"
"""Tag of a run, and of a registered version: the key for the metric that ranks it."""
_DIGITS = 8


def comparison_key(params: Mapping[str, Any], tags: Mapping[str, str], metric: str) -> str:
    """Return the key for a metric of a run with these parameters and tags, as the journal or
    MLflow has them; "" of a run that is not of genpipe, or of a family that is not installed."""
    if KEY in tags and tags.get("metric") == metric:
        return tags[KEY]
    family = tags.get("family", "")
    try:
        measures = space(family).measures
    except InputError:
        return ""
    settings = {name: params.get(f"model.{name}", before) for name, before in measures.items()}
    settings["binarise"] = params.get("binarise", False)
    words = [family, f"data={tags.get('data_digest') or params.get('data', '')}"]
    words += [f"{name}={value}" for name, value in settings.items()]
    return " ".join([*words, described(metric)])


def short(key: str) -> str:
    """Return eight hexadecimal digits that stand for a key, in tables and in names of aliases; ""
    for none."""
    return hashlib.sha256(key.encode()).hexdigest()[:_DIGITS] if key else ""
