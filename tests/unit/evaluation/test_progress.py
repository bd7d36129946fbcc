"""Log lines about long work."""

import logging

import pytest

from pipelines.evaluation.progress import ProgressLog


def test_progress_is_logged_when_it_is_due(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pipelines.evaluation")
    often = ProgressLog("features of images", total=30, seconds=0.0)
    often.advance(10)
    often.advance(20)
    assert caplog.messages == ["features of images: 10 of 30", "features of images: 30 of 30"]
    caplog.clear()
    ProgressLog("features of images", total=30, seconds=1e6).advance(10)
    assert not caplog.messages
