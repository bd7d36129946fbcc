"""The error for wrong input, which the user can correct; all other errors are bugs."""

from collections.abc import Sequence


class InputError(ValueError):
    """Wrong input of the user.

    The message is complete in itself: it names the field or file, the value, and what would be
    right. The command line prints it without a traceback and exits with code 2.
    """


def require(ok: bool, field: str, value: object, expected: str) -> None:
    """Raise `InputError` unless `ok`: `latent_dim = -3: expected an integer of at least 1`."""
    if not ok:
        raise InputError(f"{field} = {value!r}: expected {expected}")


def require_sizes(latent_dim: int, hidden: Sequence[int], channels: int) -> None:
    """Check the sizes that every family's config has."""
    require(latent_dim >= 1, "latent_dim", latent_dim, "an integer of at least 1")
    require(bool(hidden) and min(hidden) >= 1, "hidden", hidden, "one width or more, from 1")
    require(channels >= 1, "channels", channels, "an integer of at least 1")
