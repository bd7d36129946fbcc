"""Draws boxes, arrows and text as an SVG file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" \
height="{height}" font-family="DejaVu Sans, Verdana, Arial, sans-serif">
<title>{title}</title>
<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" \
orient="auto-start-reverse"><path d="M0 1 L9 5 L0 9 z" fill="#456"/></marker></defs>
<rect width="100%" height="100%" fill="white"/>
"""


class Drawing:
    """An SVG picture; coordinates are in pixels from the top left."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._parts = [_HEAD.format(width=width, height=height, title=escape(title))]

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 12,
        bold: bool = False,
        anchor: str = "middle",
        colour: str = "#222",
        halo: bool = False,
    ) -> None:
        """Write a line whose baseline is at `y`.

        `anchor`: start, middle or end. `halo`: keep the lines behind the text away from it.
        """
        weight = ' font-weight="bold"' if bold else ""
        outline = ' stroke="#f4f7fa" stroke-width="4" paint-order="stroke"' if halo else ""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}" '
            f'fill="{colour}"{weight}{outline}>{escape(text)}</text>\n'
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        fill: str = "white",
        stroke: str = "#456",
    ) -> None:
        """Draw a rectangle with rounded corners."""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" '
            f'fill="{fill}" stroke="{stroke}"/>\n'
        )

    def line(
        self,
        points: Sequence[tuple[float, float]],
        *,
        head: bool = True,
        dashed: bool = False,
        colour: str = "#456",
    ) -> None:
        """Draw a line through points, with an arrow head at its end."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        end = ' marker-end="url(#head)"' if head else ""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.3"'
            f"{dash}{end}/>\n"
        )

    def svg(self) -> str:
        """Return the content of the file."""
        return "".join(self._parts) + "</svg>\n"
