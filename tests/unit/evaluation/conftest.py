"""The digits and the classifier that is fitted to them, once for all tests of evaluation."""

import logging
import shutil
from pathlib import Path

import pytest
from support.evaluation import Fitted

from pipelines.data import Dataset, load
from pipelines.evaluation.feature_spaces import make_extractor
from pipelines.store.layout import Store


class _Messages(logging.Handler):
    """Keeps the messages of a logger."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load("digits", Path())


@pytest.fixture(scope="session")
def fitted(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """A store with the classifier of the digits, which tests do not change."""
    root, handler = tmp_path_factory.mktemp("fitted"), _Messages()
    logger = logging.getLogger("pipelines.evaluation")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        extractor = make_extractor(digits, Store.at(root))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return Fitted(root, extractor, handler.messages)


@pytest.fixture
def store(fitted: Fitted, tmp_path: Path) -> Store:
    """A store of the test's own, with the classifier of the digits."""
    return Store.at(shutil.copytree(fitted.root, tmp_path / "store"))
