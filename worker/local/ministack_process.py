"""The process of the embedded AWS: serves ministack on an inherited socket and never outlives its parent.

Run by path, not as a module, so that it imports nothing of Longshore: `python -P ministack_process.py LISTENING_FD`.
It ends when its standard input does, which is when the parent closes it or is gone, whatever killed it.
"""

import asyncio
import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve until standard input ends."""
    if sys.platform == "linux":  # a copy of the pipe's other end may live on in another child of the parent
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()

    from hypercorn.asyncio import serve
    from hypercorn.config import Config
    from ministack.app import app

    config = Config()
    config.bind = [f"fd://{int(sys.argv[1])}"]
    config.keep_alive_timeout = 75
    config.loglevel = "WARNING"
    asyncio.run(serve(app, config))


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
