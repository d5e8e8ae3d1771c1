"""SIGTERM while the worker is still being loaded."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import typer

__all__ = ["ending_early"]


@contextmanager
def ending_early() -> Iterator[None]:
    """Let SIGTERM end what is inside at once, with status 0, until the worker listens itself: nothing is in hand.

    Without a handler the kernel does not deliver it to PID 1, so a container would be killed at the end of its grace
    period instead.
    """
    is_told = False

    def end(*_: object) -> None:
        nonlocal is_told
        is_told = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        if is_told:
            raise typer.Exit(0) from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
