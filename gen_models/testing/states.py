"""Comparison of states, such as `Learner.state_dict()`."""

from torch import Tensor


def assert_equal_states(a: object, b: object) -> None:
    """Assert that two nested states of tensors and plain values are equal bit for bit."""
    if isinstance(a, Tensor):
        assert isinstance(b, Tensor) and a.equal(b)
    elif isinstance(a, dict):
        assert isinstance(b, dict) and a.keys() == b.keys()
        for key in a:
            assert_equal_states(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert isinstance(b, (list, tuple)) and len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal_states(x, y)
    else:
        assert a == b
