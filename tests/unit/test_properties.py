"""Whatever is read that others may have written: drawn inputs, all of them read or refused."""

from collections.abc import Iterator

import pytest
from support.properties import PROPERTIES, check_property, remove_scratch


@pytest.fixture(scope="module", autouse=True)
def scratch_is_removed() -> Iterator[None]:
    yield
    remove_scratch()


@pytest.mark.parametrize("num", [200, pytest.param(10_000, marks=pytest.mark.faults)])
@pytest.mark.parametrize("name", PROPERTIES)
def test_an_input_is_read_or_refused(name: str, num: int) -> None:
    check_property(name, num)
