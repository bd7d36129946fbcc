"""A package outside this repository that registers a family."""

from pathlib import Path

FAMILY = """
from gen_models.core.families import Family

WAE = Family("{model}.wae", "{space}")
"""


def write_family_package(folder: Path, *, model: str, space: str, value: str) -> None:
    """Write a distribution that registers the family `wae`, to be put on `sys.path`.

    `model` and `space` are top-level names; `value` is the entry point's. The modules are empty:
    the family can be listed and located, and not trained.
    """
    for name in {model, value.partition(":")[0]}:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(FAMILY.format(model=model, space=space))
    (folder / f"{space}.py").write_text("")
    metadata = folder / "other_models-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: other-models\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text(f"[genpipe.families]\nwae = {value}\n")
