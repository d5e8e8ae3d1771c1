"""The standard streams, as whoever started the process has left them."""

import os
import sys

__all__ = ["mend_standard_streams"]


def mend_standard_streams() -> None:
    """Open the closed ones on nothing, and let no character that the terminal does not know end the process.

    The number of a closed one would be given to the first file or socket that is opened, which then gets what is
    printed; uvloop aborts the process over it.
    """
    # In the order of their numbers, as the lowest free one is taken.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - as long as the process
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # no tests' stand-ins here
