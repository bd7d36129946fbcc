"""Environment variables and warning filters that are set for a block."""

import os
import warnings

import pytest

from pipelines.cluster.environment import default_environment, environment, ignored_warnings


def test_variables_are_put_back_also_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENPIPE_SET", "before")
    monkeypatch.delenv("GENPIPE_UNSET", raising=False)
    with (
        pytest.raises(ZeroDivisionError),
        environment({"GENPIPE_SET": "within", "GENPIPE_UNSET": "within"}),
    ):
        assert os.environ["GENPIPE_SET"] == os.environ["GENPIPE_UNSET"] == "within"
        raise ZeroDivisionError
    assert os.environ["GENPIPE_SET"] == "before" and "GENPIPE_UNSET" not in os.environ


def test_variable_that_the_block_removes_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENPIPE_SET", "before")
    with environment({"GENPIPE_SET": "within"}):
        del os.environ["GENPIPE_SET"]
    assert os.environ["GENPIPE_SET"] == "before"


def test_defaults_leave_what_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENPIPE_SET", "user")
    monkeypatch.delenv("GENPIPE_UNSET", raising=False)
    with default_environment({"GENPIPE_SET": "default", "GENPIPE_UNSET": "default"}):
        assert (os.environ["GENPIPE_SET"], os.environ["GENPIPE_UNSET"]) == ("user", "default")
    assert os.environ["GENPIPE_SET"] == "user" and "GENPIPE_UNSET" not in os.environ


def test_only_named_warnings_of_the_category_are_ignored() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with ignored_warnings("The value .* is", category=UserWarning):
            warnings.warn("The value 3 is ignored", UserWarning, stacklevel=1)
            warnings.warn("The value 3 is ignored", FutureWarning, stacklevel=1)
            warnings.warn("Another", UserWarning, stacklevel=1)
        warnings.warn("The value 3 is shown again", UserWarning, stacklevel=1)
    assert [(str(w.message), w.category) for w in shown] == [
        ("The value 3 is ignored", FutureWarning),
        ("Another", UserWarning),
        ("The value 3 is shown again", UserWarning),
    ]
