"""An interruption that was raised in the midst of work, where a library may pass it over or raise an error for it."""

from __future__ import annotations

_raised: list[KeyboardInterrupt] = []


def remember(stop: KeyboardInterrupt) -> KeyboardInterrupt:
    """That it is raised here and now."""
    _raised[:] = [stop]
    return stop


def forget() -> None:
    """What was raised has come to where it ends."""
    _raised.clear()


def raise_again(instead_of: BaseException | None = None) -> None:
    """Raise it once more, where it was raised; instead_of: what came in its place."""
    if _raised:
        raise _raised[0] from instead_of
