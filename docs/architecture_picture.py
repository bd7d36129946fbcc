"""Draws the packages as boxes on floors, with the imports between them, computed from the code.

The floor of a package is the length of the longest chain of imports below it; only its place along
the floor is laid by hand.
"""

from __future__ import annotations

import ast
import textwrap
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from grimp import ImportGraph, build_graph

from docs.drawing import Drawing

_ROOT = Path(__file__).parents[1]
_FAMILIES = "families"
_FAMILY_NAMES = sorted({path.stem for path in (_ROOT / "gen_models").glob("*.py")} - {"__init__"})
"""The built-in ones: the picture does not depend on what is installed beside them."""
_COLUMNS: Mapping[str, Mapping[str, float]] = {
    "pipelines": {
        **{"cli": 1, "catalog": 0.5, "tuning": 1.5, "training": 1},
        **{"report": 0, "tracking": 2, "analysis": 0, "evaluation": 1, "config": 0},
        **{"store": 0, "data": 1, "cluster": 2},
    },
    "gen_models": {
        **{"testing": 1, "metrics": 0, "fused": 1, _FAMILIES: 2},
        **{"training": 0.5, "blocks": 2, "core": 1.25},
    },
}
"""Place of a package along its floor, in boxes from the left; a new package comes last."""
_LIBRARIES = ("ray", "torch", "mlflow", "optuna", "tyro", "rich", "jinja2", "plotly")
_BOX, _HEIGHT = 260, 84
_GAP, _PITCH = 30, 124
_LEFT, _WIDTH = 40, 920
_FRAMES = {"pipelines": "#eef4fa", "tune_spaces": "#f7f3e8", "gen_models": "#eef7ee"}

Graph = Mapping[str, set[str]]
"""By package, the packages that it imports."""


def architecture_svg() -> str:
    """Return the picture of the packages."""
    code = build_graph(
        *_FRAMES,
        include_external_packages=True,
        exclude_type_checking_imports=True,
        cache_dir=None,
    )
    graphs = {root: _package_graph(code, root) for root in ("pipelines", "gen_models")}
    heights = {root: _frame_height(graph) for root, graph in graphs.items()}
    heights["tune_spaces"] = _HEIGHT + 30
    total = sum(heights.values()) + 2 * 46 + 96
    drawing = Drawing(_WIDTH, total, "The packages of genpipe and the imports between them")
    drawing.text(
        _LEFT, 34, "The packages, and what they import", size=18, bold=True, anchor="start"
    )
    note = (
        "An arrow points to a package that is imported; one that follows from others is left out. "
        "In brown: libraries."
    )
    drawing.text(_LEFT, 56, note, anchor="start", colour="#555")
    y = 76
    for root, fill in _FRAMES.items():
        drawing.box(_LEFT - 20, y, _WIDTH - 40, heights[root], fill=fill, stroke="#bcc7d2")
        drawing.text(_LEFT - 8, y + 22, f"{root}/", size=14, bold=True, anchor="start")
        if root in graphs:
            _draw_packages(drawing, code, root, graphs[root], y)
        else:
            _draw_box(drawing, (_LEFT + _BOX + _GAP, y + 15), "a file for each family", code, root)
        if root != "gen_models":
            middle = _LEFT + 1.5 * _BOX + _GAP
            drawing.line([(middle, y + heights[root]), (middle, y + heights[root] + 46)])
        y += heights[root] + 46
    return drawing.svg()


def _package_graph(code: ImportGraph, root: str) -> dict[str, set[str]]:
    """Return the imports between the packages of `root`; families are one package."""
    graph: dict[str, set[str]] = {}
    for module in sorted(code.modules):
        importer = _package(module, root)
        if not importer:
            continue
        imported = {_package(m, root) for m in code.find_modules_directly_imported_by(module)}
        graph.setdefault(importer, set()).update(imported - {importer, ""})
    return graph


def _package(module: str, root: str) -> str:
    """Return the package of `root` that a module lies in; "" if it lies in none."""
    top, _, rest = module.partition(".")
    name = rest.partition(".")[0]
    if top != root or not name or name == "__main__":
        return ""
    return _FAMILIES if top == "gen_models" and name in _FAMILY_NAMES else name


def _floors(graph: Graph) -> dict[str, int]:
    """Return the length of the longest chain of imports below each package."""
    floors: dict[str, int] = {}

    def floor(name: str) -> int:
        if name not in floors:
            floors[name] = max((floor(below) + 1 for below in graph[name]), default=0)
        return floors[name]

    for name in graph:
        floor(name)
    return floors


def _reduced(graph: Graph) -> Graph:
    """Return the graph without the imports that lead where a longer chain leads."""

    def below(name: str) -> set[str]:
        return graph[name].union(*map(below, graph[name]))

    return {
        name: imported - set[str]().union(*map(below, imported))
        for name, imported in graph.items()
    }


def _frame_height(graph: Graph) -> int:
    return (max(_floors(graph).values()) + 1) * _PITCH - (_PITCH - _HEIGHT) + 54


def _draw_packages(drawing: Drawing, code: ImportGraph, root: str, graph: Graph, top: int) -> None:
    floors = _floors(graph)
    highest = max(floors.values())
    corners: dict[str, tuple[float, float]] = {}
    taken: dict[int, float] = defaultdict(lambda: -1.0)
    known = _COLUMNS[root]
    for name in sorted(graph, key=lambda each: (each not in known, each)):
        column = known.get(name, taken[floors[name]] + 1)
        taken[floors[name]] = max(taken[floors[name]], column)
        y = top + 34 + (highest - floors[name]) * _PITCH
        corners[name] = (_LEFT + column * (_BOX + _GAP), y)
    for name, imported in _reduced(graph).items():
        for below in sorted(imported):
            drawing.line([_port(corners, name, below), _port(corners, below, name)])
    for name, corner in corners.items():
        _draw_box(drawing, corner, name, code, f"{root}.{name}")


def _port(
    corners: Mapping[str, tuple[float, float]], name: str, other: str
) -> tuple[float, float]:
    """Return where an arrow touches a box: on the side of the other box, and towards it."""
    (x, y), (other_x, other_y) = corners[name], corners[other]
    shift = max(-0.3, min(0.3, (other_x - x) / (4 * _BOX))) * _BOX
    return x + _BOX / 2 + shift, y + (_HEIGHT if other_y > y else 0)


def _draw_box(
    drawing: Drawing, corner: tuple[float, float], name: str, code: ImportGraph, module: str
) -> None:
    x, y = corner
    drawing.box(x, y, _BOX, _HEIGHT)
    drawing.text(x + _BOX / 2, y + 18, name, size=13, bold=True)
    for index, line in enumerate(textwrap.wrap(_summary(module), 42)[:3]):
        drawing.text(x + _BOX / 2, y + 34 + 13 * index, line, size=10.5)
    used = ", ".join(_libraries(code, module))
    drawing.text(x + _BOX / 2, y + _HEIGHT - 6, used, size=10, colour="#8a5a00")


def _summary(module: str) -> str:
    """Return the first sentence of a package's docstring."""
    if module.endswith(_FAMILIES):
        return ", ".join(_FAMILY_NAMES) + ": a file is a family."
    source = (_ROOT / Path(*module.split(".")) / "__init__.py").read_text(encoding="utf-8")
    text = " ".join((ast.get_docstring(ast.parse(source)) or "").split())
    return text.partition(". ")[0].rstrip(".").replace("`", "")


def _libraries(code: ImportGraph, module: str) -> list[str]:
    """Return the libraries, of those worth naming, that a package imports."""
    root, _, name = module.partition(".")
    own = [f"{root}.{each}" for each in _FAMILY_NAMES] if name == _FAMILIES else [module]
    inside = {m for each in own for m in (each, *code.find_descendants(each))}
    return [
        library
        for library in _LIBRARIES
        if library in code.modules and code.find_modules_that_directly_import(library) & inside
    ]
