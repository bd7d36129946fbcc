"""What a notebook shows of a result: lines, a table, and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from pipelines.report.embedding import file_url
from pipelines.report.tables import Column


def as_html(
    lines: Iterable[str], columns: Sequence[Column], pictures: Iterable[str | None]
) -> str:
    """Return HTML with the lines that are not empty, the table, and the pictures that exist."""
    parts = [f"<p>{escape(line)}</p>" for line in lines if line]
    if columns:
        parts.append(_table(columns))
    urls = filter(None, map(file_url, pictures))
    return "\n".join([*parts, *(f'<img alt="samples" src="{url}">' for url in urls)])


def _table(columns: Sequence[Column]) -> str:
    head = "".join(f"<th>{escape(each.name)}</th>" for each in columns)
    rows = zip(*(each.cells for each in columns), strict=True)
    cells = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
