"""Tables fit a width: ids are shortened, text is broken, numbers are whole."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.report.tables import Column, draw_table, setting_column

NUMBERS = Column("model.kl_weight", ["0.00034618", "-12.5"], "number")
ID = Column("run", ["0123456789abcdef", "fedcba9876543210"], "id")
NAME = Column("name", ["vae-20261130-004326-bfb0", "a run of mine"])


def test_a_table_is_whole_where_it_has_room() -> None:
    lines = draw_table([ID, NAME, NUMBERS])
    assert lines == draw_table([ID, NAME, NUMBERS], 59)
    assert lines == [
        "run               name                      model.kl_weight",
        "0123456789abcdef  vae-20261130-004326-bfb0       0.00034618",
        "fedcba9876543210  a run of mine                       -12.5",
    ]


def test_ids_are_shortened_then_names_and_then_text_are_broken() -> None:
    assert draw_table([ID, NAME, NUMBERS], 58)[1].split()[0] == "01234567"
    assert draw_table([ID, NAME, NUMBERS], 46) == [
        "run       name                       model.kl_",
        "                                        weight",
        "01234567  vae-20261130-004326-bfb0  0.00034618",
        "fedcba98  a run of mine                  -12.5",
    ]
    assert draw_table([ID, NAME, NUMBERS], 34) == [
        "run       name           model.kl_",
        "                            weight",
        "01234567  vae-          0.00034618",
        "          20261130-",
        "          004326-bfb0",
        "fedcba98  a run of           -12.5",
        "          mine",
    ]


def test_what_is_equal_is_said_once_and_what_has_no_room_is_named() -> None:
    same = Column("experiment", ["vae-digits", "vae-digits"], optional=True)
    many = [setting_column(f"optim.x{n}", ["0.12345678", "1"]) for n in range(4)]
    lines = draw_table([ID, same, *many], 46)
    assert lines[-2:] == ["of all: experiment vae-digits", "no room for: optim.x3"]
    assert max(map(len, lines)) <= 46
    assert "experiment" in draw_table([ID, same, *many], 200)[0]


def test_a_setting_that_is_no_number_is_text() -> None:
    assert setting_column("a", ["1", "", "2.5e-3", "inf"]).kind == "number"
    assert setting_column("a", ["[8, 8]", "1"]).kind == "text"


@st.composite
def tables(draw: st.DrawFn) -> list[Column]:
    rows = draw(st.integers(1, 4))
    columns = []
    for _ in range(draw(st.integers(1, 6))):
        kind: Any = draw(st.sampled_from(["text", "number", "id"]))
        cell = {
            "text": st.text("ab-_/. ", max_size=30),
            "number": st.floats(allow_nan=False).map(lambda value: f"{value:.5g}"),
            "id": st.text("0123456789abcdef", min_size=8, max_size=32),
        }[kind]
        cells = draw(st.lists(cell, min_size=rows, max_size=rows))
        name = draw(st.text("xyz._/", max_size=20))
        columns.append(Column(name, cells, kind, optional=draw(st.booleans())))
    return columns


@given(tables(), st.integers(1, 120))
@settings(max_examples=200, deadline=None)
def test_a_table_fits_and_cuts_no_number(columns: list[Column], width: int) -> None:
    lines = draw_table(columns, width)
    notes = [line for line in lines if line.startswith(("of all: ", "no room for: "))]
    table = lines[: len(lines) - len(notes)]
    needed = [each.shortened() for each in columns if not each.optional]
    least = sum(each.min_width for each in needed) + 2 * (len(needed) - 1)
    assert max(map(len, table), default=0) <= max(width, least)
    said = "\n".join(lines).split()
    for each in needed:
        if each.kind == "number":
            assert all(cell in said for cell in each.cells)


@pytest.mark.parametrize("width", [None, 10])
def test_a_table_of_one_row(width: int | None) -> None:
    assert draw_table([Column("a", ["1"], "number", optional=True)], width) == ["a", "1"]
