"""YAML that a person writes: YAML 1.2's scalars, lines in messages, and files that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import loaders
from support.containment import Reading, read_contained

from gen_models.core.errors import InputError
from pipelines.config.yaml_text import MAX_BYTES, dump_yaml, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("-.5", -0.5),
        ("2.", 2.0),
        ("010", 10),
        ("+3", 3),
        ("'3'", "3"),
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("", None),
        ("~", None),
        ("2020-01-01", "2020-01-01"),
        ("1:30", "1:30"),
        ("0x1F", "0x1F"),
        (".inf", ".inf"),
        ("[1, [2, x]]", [1, [2, "x"]]),
        ("{a: {b: off}}", {"a": {"b": "off"}}),
        ("loguniform(1e-5, 1e-1)", "loguniform(1e-5, 1e-1)"),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    content = parse_yaml(f"key: {text}", "x").content
    assert content == {"key": value} and type(content["key"]) is type(value)


def test_each_value_knows_its_line() -> None:
    document = parse_yaml("a: 1\nb:\n  c: [1,\n    2]\n# d\nd: 3\n", "job.yaml")
    assert document.place("a") == "job.yaml, line 1"
    assert document.place("b", "c") == "job.yaml, line 3"
    assert document.place("b", "c", 1) == "job.yaml, line 4"
    assert document.place("d") == "job.yaml, line 6"
    assert document.place("b", "unknown") == "job.yaml, line 2"  # where it would belong
    assert str(document.error("wrong", "d")) == "job.yaml, line 6: wrong"
    assert document.find((), "b.c") == ("b", "c")
    assert document.find(("b",), "c") == ("b", "c")
    assert document.find(("b",), "d") == ("b",)


def test_a_value_that_is_replaced_has_another_place() -> None:
    document = parse_yaml("a: {b: 1, c: 2}\n", "x").replaced(("a", "b"), 5, "--set a.b")
    assert document.content == {"a": {"b": 5, "c": 2}}
    assert (document.place("a", "b"), document.place("a", "c")) == ("--set a.b", "x, line 1")
    made = document.replaced(("d", "e", "f"), 1, "--set d.e.f")
    assert made.content["d"] == {"e": {"f": 1}} and made.place("d") == "--set d.e.f"


WRONG = {
    "a key twice": ("a: 1\nb: 2\na: 3", "x.yaml, line 3: a stands twice, first in line 1"),
    "a key twice, deeper": ("a:\n  b: 1\n  b: 2", "x.yaml, line 3: b stands twice"),
    "no end": ("a: [1,\n2", "x.yaml, line 2: no YAML: expected ',' or ']'"),
    "indentation": ("a: 1\n  b: 2", "x.yaml, line 2: no YAML: mapping values are not allowed"),
    "an alias": ("a: 1\nb: *a", "x.yaml, line 2: no YAML: anchors and aliases are not taken"),
    "an anchor": ("a: &a 1", "x.yaml, line 1: no YAML: anchors and aliases are not taken"),
    "a tag": ("a: !!python/name:os.system x", "x.yaml, line 1: no YAML: tags are not taken"),
    "two documents": ("a: 1\n---\nb: 2", "x.yaml, line 2: no YAML: but found another document"),
    "a key that is a list": ("? [1]\n: 2", "x.yaml, line 1: expected a name before the colon"),
    "digits": (f"a: {'9' * 5000}", "has too many digits"),
    "a control character": ("a: \0", "x.yaml: no YAML: special characters are not allowed"),
    "no UTF-8": (b"a: \xff", "x.yaml: expected UTF-8: invalid start byte at byte 3"),
    "too long": (" " * (MAX_BYTES + 1), f"x.yaml: expected at most {MAX_BYTES} bytes of YAML"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_yaml_is_named_with_its_line(case: str) -> None:
    text, expected = WRONG[case]
    with pytest.raises(InputError) as raised:
        parse_yaml(text, "x.yaml")
    assert expected in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path, Path("/dev/zero")):
        with pytest.raises(InputError, match=r"expected a YAML file: there is none"):
            read_yaml(path)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.sampled_from(["off", "1e-5", "null", "010", "~", "- a", "a: b", "#", "${a.b}", "=", "<<"]),
)


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            SCALARS,
            lambda inner: st.one_of(
                st.lists(inner, max_size=3),
                st.dictionaries(st.text(max_size=4), inner, max_size=3),
            ),
            max_leaves=6,
        ),
        max_size=4,
    )
)
def test_what_is_written_is_read_back(content: dict[str, Any]) -> None:
    assert parse_yaml(dump_yaml(content), "x").content == content


LEVELS = "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'x'}]\n" for n in range(9)
)
HOSTILE: dict[str, str] = {
    "a billion of laughs": LEVELS,
    "laughs by merging": "a: &a {x: 1}\nb: &b {<<: [*a, *a]}\nc: {<<: [*b, *b]}\n",
    "an anchor within itself": "a: &a [*a]\n",
    "code": "a: !!python/object/apply:os.system ['touch ran']\n",
    "code of an old loader": "a: !!python/object/new:type\n  args: [x]\n",
    "lists nested 100,000 deep": "[" * 100_000,
    "mappings nested 60,000 deep": "{a: " * 60_000,
    "items nested 100,000 deep": "- " * 100_000,
    "64 MiB of spaces": " " * (64 << 20),
    "64 MiB of items": "- a\n" * (16 << 20),
    "a text without end": "a: '" + "x" * 200_000,
    "200,000 digits": "a: " + "9" * 200_000,
    "a binary": "a: !!binary " + "A" * 1000,
    "an end of nothing": "]" * 1000,
    "a directive": "%YAML 9.9\n---\na: 1\n",
    "tabs": "\t\t\ta: 1",
    "a key of 200,000 letters": "? " + "k" * 200_000 + "\n: 1\n? " + "k" * 200_000 + "\n: 2\n",
}


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reading]:
    """What became of each file."""
    above = tmp_path_factory.mktemp("hostile")
    paths = [above / f"{number:03}.yaml" for number in range(len(HOSTILE))]
    for path, content in zip(paths, HOSTILE.values(), strict=True):
        path.write_text(content)
    readings = read_contained([(loaders.job, (path,)) for path in paths])
    assert not list(above.glob("ran")) and not Path("ran").exists()
    return dict(zip(HOSTILE, readings, strict=True))


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_job_file_is_refused(case: str, readings: dict[str, Reading]) -> None:
    reading = readings[case]
    assert reading.how == "refused", reading
    assert ".yaml" in reading.message and "\n" not in reading.message
    assert len(reading.message) < 1500, reading.message[:1500]
    assert reading.peak < 64, reading
