"""An interruption that was raised in the midst of work, where a library may pass it over or raise an error for it."""

from __future__ import annotations

_raised: list[KeyboardInterrupt] = []


def remember(stop: KeyboardInterrupt) -> KeyboardInterrupt:
    """Note that it is raised here and now; gives it back."""
    _raised[:] = [stop]
    return stop


def forget() -> None:
    """Drop the note: what was raised has come to where it ends."""
    _raised.clear()


def raise_again(instead_of: BaseException | None = None) -> None:
    """Raise the noted one once more, if there is one; instead_of: the error that came in its place."""
    if _raised:
        raise _raised[0] from instead_of
