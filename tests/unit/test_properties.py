"""Whatever is read that others may have written: 200 inputs each, and in tests/faults 10,000."""

from collections.abc import Iterator

import pytest
from support.properties import PROPERTIES, check_property, remove_scratch


@pytest.fixture(scope="module", autouse=True)
def scratch_is_removed() -> Iterator[None]:
    yield
    remove_scratch()


@pytest.mark.parametrize("name", PROPERTIES)
def test_an_input_is_read_or_refused(name: str) -> None:
    check_property(name, 200)
