"""Tables of text that fit a width: ids are shortened, text is broken over lines, and what finds no
place is left out and named below. Numbers are never cut."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

_GAP = "  "
_ID_DIGITS = 8
"""Digits of an id in a table that is too wide; commands take an id that begins so."""
_NARROW = 12
"""A word of more characters than this may be broken where room is short."""
_PIECES = re.compile(r"[^ ./_-]*[ ./_-]?")


ColumnKind = Literal["text", "number", "id"]


@dataclass(frozen=True)
class Column:
    """A column of a table with at least one row."""

    name: str
    cells: Sequence[str]
    kind: ColumnKind = "text"
    """Numbers stand at the right, and are whole; an id may be shortened; text may be broken."""
    optional: bool = False
    """Whether it may be left out: at once if all its cells are equal, which are then named below
    the table, else the rightmost first."""

    @property
    def min_width(self) -> int:
        """The least width, if the name is broken over lines, and text too."""
        words = [piece.rstrip() for piece in _pieces(self.name)]
        if self.kind != "text":
            return max(map(len, [*words, *self.cells]))
        words += [piece.rstrip() for cell in self.cells for piece in _pieces(cell)]
        return min(_NARROW, max(map(len, words), default=0))

    @property
    def full_width(self) -> int:
        """The width with every cell, and the name, in one line."""
        return max(len(self.name), *map(len, self.cells))

    @property
    def cell_width(self) -> int:
        """The width with every cell in one line, and the name broken over lines."""
        return max(self.min_width, *map(len, self.cells))

    def shortened(self) -> Column:
        """Return the column with its ids shortened."""
        short = [cell[:_ID_DIGITS] for cell in self.cells]
        return replace(self, cells=short) if self.kind == "id" else self


def draw_table(columns: Sequence[Column], width: int | None = None) -> list[str]:
    """Return the lines of a table, and below it what it leaves out. `width`: its characters at
    most, if its numbers and names allow it; None for whole rows."""
    if _fits([each.full_width for each in columns], width):
        return list(_lines(columns, [each.full_width for each in columns]))
    assert width is not None
    kept = [each.shortened() for each in columns]
    notes: list[str] = []
    if not _fits([each.full_width for each in kept], width):
        equal = [each for each in kept if _is_equal(each)]
        kept = [each for each in kept if not _is_equal(each)]
        if equal:
            notes.append(f"of all: {', '.join(f'{each.name} {each.cells[0]}' for each in equal)}")
    left_out: list[str] = []
    while not _fits([each.min_width for each in kept], width):
        last = next((each for each in reversed(kept) if each.optional), None)
        if last is None:
            break
        kept.remove(last)
        left_out.insert(0, last.name)
    if left_out:
        notes.append(f"no room for: {', '.join(left_out)}")
    return [*_lines(kept, _widths(kept, width)), *notes]


def number_text(value: Any) -> str:
    """Return a value as tables show it: a number with five digits, nothing for None."""
    return f"{value:.5g}" if isinstance(value, float) else str(value if value is not None else "")


def field_column(
    rows: Sequence[Any], name: str, kind: ColumnKind = "text", *, optional: bool = False
) -> Column:
    """Return the column with a field of each row."""
    cells = [number_text(getattr(row, name)) for row in rows]
    return Column(name.removesuffix("_id"), cells, kind, optional)


def pair_columns(values: Mapping[str, Any]) -> list[Column]:
    """Return a table of names and their values."""
    cells = [number_text(value) for value in values.values()]
    return [Column("name", list(values)), Column("value", cells, "number")] if values else []


def is_number(text: str) -> bool:
    """Return whether a cell is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def setting_column(name: str, cells: Sequence[str]) -> Column:
    """Return the column of a setting, which may be left out."""
    numbers = all(is_number(cell) for cell in cells if cell)
    return Column(name, cells, "number" if numbers else "text", optional=True)


def _is_equal(column: Column) -> bool:
    return column.optional and len(column.cells) > 1 and len(set(column.cells)) == 1


def _fits(widths: Sequence[int], width: int | None) -> bool:
    return width is None or sum(widths) + len(_GAP) * (len(widths) - 1) <= width


def _widths(columns: Sequence[Column], width: int) -> list[int]:
    """Return the widths with which a table fits: first names are broken, then text."""
    for wanted in ("full_width", "cell_width"):
        widths = [getattr(each, wanted) for each in columns]
        if _fits(widths, width):
            return widths
    while not _fits(widths, width):
        spare = [w - each.min_width for w, each in zip(widths, columns, strict=True)]
        widest = max(range(len(widths)), key=lambda index: (spare[index] > 0, widths[index]))
        if spare[widest] <= 0:
            break
        widths[widest] -= 1
    return widths


def _lines(columns: Sequence[Column], widths: Sequence[int]) -> Iterator[str]:
    for row in zip(*([each.name, *each.cells] for each in columns), strict=True):
        broken = [_broken(cell, width) for cell, width in zip(row, widths, strict=True)]
        for number in range(max(map(len, broken))):
            cells = [lines[number] if number < len(lines) else "" for lines in broken]
            yield _GAP.join(
                cell.rjust(width) if each.kind == "number" else cell.ljust(width)
                for cell, width, each in zip(cells, widths, columns, strict=True)
            ).rstrip()


def _pieces(text: str) -> list[str]:
    """Return a text's pieces, between which it may be broken."""
    return [piece for piece in _PIECES.findall(text) if piece]


def _broken(text: str, width: int) -> list[str]:
    """Return the lines of a text, each of at most so many characters."""
    lines = [""]
    for piece in _pieces(text):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return [line.rstrip() for line in lines]
