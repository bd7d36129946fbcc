"""Finds the Python packages that a cluster's processes need: this project, and families.

A family outside this repository is registered as an entry point (`gen_models.core.families`). On
a cluster its package must be importable and its entry point known. Where the package lies in
site-packages, it is taken to be installed on the cluster as well, with its dependencies. Any
other, such as one that is being developed, is sent there along with this project.
"""

import logging
import shutil
import site
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from gen_models.core.families import GROUP, Family

PROJECT = ("gen_models", "pipelines", "tune_spaces")

_log = logging.getLogger(__name__)


def project_packages() -> list[Path]:
    """Return the folders of this project's packages, wherever they are installed."""
    return [folder for name in PROJECT for folder in _locate(name)]


@contextmanager
def family_packages() -> Iterator[list[Path]]:
    """List, for the block, the folders that make families of other packages known on a cluster.

    These are their packages, as far as they lie outside site-packages, and a `.dist-info` folder
    for each distribution, with its entry points. Each is an entry of Ray's `py_modules`. Folders
    that are made for this purpose lie in a temporary one, which is removed after the block.
    """
    with tempfile.TemporaryDirectory() as temporary:
        found: list[Path] = []
        for entry_point in entry_points(group=GROUP):
            packages = [path for path in _packages(entry_point) if not _is_installed(path)]
            if packages:
                found += [_as_package(path, Path(temporary)) for path in packages]
                found.append(_write_metadata(Path(temporary), entry_point))
        yield list(dict.fromkeys(found))


def _packages(entry_point: EntryPoint) -> list[Path]:
    """The top-level packages, or files, of a family: entry point, model and search space."""
    modules = [entry_point.module]
    try:
        family = entry_point.load()
    except Exception as error:  # the module is other people's, and may not be the family asked for
        _log.warning("family %r is not sent to the cluster: %s", entry_point.name, error)
        return []
    if isinstance(family, Family):
        modules += family
    top_level = dict.fromkeys(module.partition(".")[0] for module in modules)
    return [path for name in top_level if name not in PROJECT for path in _locate(name)]


def _locate(name: str) -> list[Path]:
    """The folders of a top-level package, or the file of a module; none if it is not found."""
    spec = find_spec(name)
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [path for path in map(Path, spec.submodule_search_locations) if path.is_dir()]
    return [Path(spec.origin)] if spec.origin and spec.origin.endswith(".py") else []


def _is_installed(path: Path) -> bool:
    """True if `path` lies in a folder that packages are installed into."""
    schemes = sysconfig.get_paths()
    folders = [schemes["purelib"], schemes["platlib"], *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return any(path.resolve().is_relative_to(Path(folder).resolve()) for folder in folders)


def _as_package(path: Path, folder: Path) -> Path:
    """Return a package as it is, and a single file as a package of the same name in `folder`.

    Ray's job client sends folders only.
    """
    if path.is_dir():
        return path
    package = folder / path.stem
    package.mkdir(exist_ok=True)
    shutil.copyfile(path, package / "__init__.py")
    return package


def _write_metadata(folder: Path, entry_point: EntryPoint) -> Path:
    """Write or extend the metadata of the entry point's distribution; return its folder."""
    dist = entry_point.dist
    name = (dist.name if dist else entry_point.module).replace("-", "_")
    version = dist.version if dist else "0"
    metadata = folder / f"{name}-{version}.dist-info"
    if not metadata.is_dir():
        metadata.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (metadata / "METADATA").write_text(text)
        (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n")
    with (metadata / "entry_points.txt").open("a") as file:
        file.write(f"{entry_point.name} = {entry_point.value}\n")
    return metadata
