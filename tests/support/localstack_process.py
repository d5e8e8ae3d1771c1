"""The process of LocalStack: serves it on an inherited socket and never outlives its parent.

Run by path with LocalStack's own Python, so it imports nothing of ours: `python -P localstack_process.py LISTENING_FD`.
It ends when its standard input does, which is when the parent closes it or is gone, whatever killed it.
"""

import ctypes
import os
import signal
import socket
import sys
import threading

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve until standard input ends."""
    if sys.platform == "linux":  # a copy of the pipe's other end may live on in another child of the parent
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    _listen_on(int(sys.argv[1]))

    from localstack.runtime.main import main as serve  # type: ignore[import-not-found]  # it has a venv of its own

    serve()


def _listen_on(listening: int) -> None:
    """Make LocalStack's server take our socket: its own would listen on 0.0.0.0, whatever GATEWAY_LISTEN says."""
    from localstack.runtime.server import twisted as server  # type: ignore[import-not-found]  # likewise

    adopted = server.endpoints.AdoptedStreamServerEndpoint
    server.endpoints.TCP4ServerEndpoint = lambda reactor, _port: adopted(reactor, listening, socket.AF_INET)


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
