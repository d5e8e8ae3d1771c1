"""`longshore run`: the event loop's side of the command line."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from worker.errors import ConfigError
from worker.fleet.process import Process, aws_access, load_routers
from worker.settings import FleetSettings, load
from worker.telemetry import logs

__all__ = ["run_to_end", "run_worker"]


def run_worker(config: Path | None, queues: Sequence[str], *, is_local: bool) -> int:
    """Consume until told to stop; return the exit status."""
    settings = load(config)
    logs.configure(settings.log.format, settings.log.level)
    _check_queues(settings, queues)
    routers = load_routers(settings, queues)
    if is_local:
        from worker.cli.local import run_on_embedded_aws

        return run_to_end(run_on_embedded_aws(settings, routers))
    process = Process(settings, routers, aws_access(settings))
    return run_to_end(process.run(), left_behind=lambda: process.supervisor.left_behind)


def _check_queues(settings: FleetSettings, queues: Sequence[str]) -> None:
    for name in queues:
        if name not in settings.queues:
            known = ", ".join(settings.queues)
            nearest = get_close_matches(name, settings.queues, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"allowed are: {known}"
            raise ConfigError(f"--queue {name!r} is not a queue of the fleet file; {hint}")


def run_to_end(main: Coroutine[Any, Any, int], *, left_behind: Callable[[], int] = lambda: 0) -> int:
    """Run on uvloop where it is installed; leave without waiting for handlers that ignore the end of the drain."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        status = runner.run(main)
        if left_behind():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return status


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
