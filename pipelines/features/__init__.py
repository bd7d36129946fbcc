"""The feature space that samples are compared in: chosen by name, made once for a data set, kept
in the store, and sent to whoever measures.
"""

from pipelines.features.extractor import (
    Extractor,
    extractor,
    features_of_test,
    show_features,
    with_moments,
)
from pipelines.features.kinds import KINDS, require_features, space_name

__all__ = [
    "KINDS",
    "Extractor",
    "extractor",
    "features_of_test",
    "require_features",
    "show_features",
    "space_name",
    "with_moments",
]
