"""Sets environment variables and warning filters for a block of code, and puts them back.

None of these functions is thread-safe: the environment and the filters belong to the process.
"""

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the block, then restore what they were."""
    with restored_environment(values):
        os.environ.update(values)
        yield


@contextmanager
def restored_environment(names: Iterable[str]) -> Iterator[None]:
    """Restore the environment variables of these names after the block."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def default_environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set, for the block, those environment variables that the user has not set."""
    with environment({name: text for name, text in values.items() if name not in os.environ}):
        yield


@contextmanager
def ignored_warnings(*messages: str, category: type[Warning] = Warning) -> Iterator[None]:
    """Ignore, for the block, warnings of `category` whose text begins with one of `messages`.

    The messages are regular expressions, matched without regard to case, as in
    `warnings.filterwarnings`.
    """
    with warnings.catch_warnings():
        for message in messages:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield
