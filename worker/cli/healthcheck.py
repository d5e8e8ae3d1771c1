"""`longshore healthcheck`: ask the worker of this machine or container whether it is alive."""

import http.client
import json
from pathlib import Path
from urllib.parse import urlsplit

from worker.errors import LongshoreError, UsageError

__all__ = ["check_health"]

TIMEOUT_SECONDS = 3.0
"""Probes time out themselves, and then know less."""
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where a server listens that listens everywhere
MOST_BYTES = 65_536
OK = 200


def check_health(url: str | None, config: Path | None) -> None:
    """Return when the URL answers 200; without one, when `/livez` of the worker that the fleet file describes does.

    Raises `UsageError` for a URL or a fleet file that is none, and `LongshoreError` for a worker that is not alive.
    """
    url = _livez(config) if url is None else url
    host, port, path = _parts(url)
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        status, body = answer.status, answer.read(MOST_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise LongshoreError(f"{url} does not answer ({_reason(error)}): is the worker running?") from None
    finally:
        connection.close()
    if status != OK:
        raise LongshoreError(f"{url} answers {status}{_problems(body)}")


def _livez(config: Path | None) -> str:
    from worker.settings import load

    server = load(config).server
    if server.port == 0:
        raise UsageError(
            "server.port is 0, so the worker listens on a port that only its log tells; "
            "set server.port to a fixed one, or give its address with --url"
        )
    host = EVERYWHERE.get(server.host, server.host)
    return f"http://[{host}]:{server.port}/livez" if ":" in host else f"http://{host}:{server.port}/livez"


def _parts(url: str) -> tuple[str, int, str]:
    """Return host, port and path of the URL."""
    try:
        parsed = urlsplit(url)
        port = parsed.port
    except ValueError:
        raise _refused(url) from None
    if parsed.scheme != "http" or not parsed.hostname or any(c.isspace() or not c.isprintable() for c in url):
        raise _refused(url)
    path = parsed.path or "/"
    return parsed.hostname, 80 if port is None else port, f"{path}?{parsed.query}" if parsed.query else path


def _refused(url: str) -> UsageError:
    return UsageError(f"--url is {url!r}, but must be one such as http://127.0.0.1:8080/readyz")


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing within {TIMEOUT_SECONDS:g} s"
    return getattr(error, "strerror", None) or type(error).__name__


def _problems(body: bytes) -> str:
    """Return what the worker says is wrong, if it was the worker that answered."""
    try:
        problems = json.loads(body)["problems"]
        return ": " + "; ".join(str(problem) for problem in problems)
    except (ValueError, TypeError, KeyError):
        return ", but 200 is what says that all is well"
