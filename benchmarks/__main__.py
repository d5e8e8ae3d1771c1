"""`python -m benchmarks [messages|fifo|batches|guards|once|limits|publishing|idle|startup|planning|all]`: measure, print, exit with 1 when a goal is missed."""

import argparse
import os
import platform
import signal
import sys
from collections.abc import Callable
from importlib import metadata, util

from benchmarks import guards, idle, limits, messages, once, planning, publishing, startup, ways

NAMES = ("messages", "fifo", "batches", "guards", "once", "limits", "publishing", "idle", "startup", "planning")
LIBRARIES = ("aiobotocore", "botocore", "aiohttp", "pydantic", "orjson")


def main() -> int:
    """Run what was asked for and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what Longshore costs.")
    parser.add_argument("what", nargs="?", choices=(*NAMES, "all"), default="all")
    parser.add_argument("--rounds", type=int, default=30, help="how often each figure is measured (default: 30)")
    parser.add_argument(
        "--seconds", type=float, default=1, help="length of one round of messages or events (default: 1)"
    )
    parser.add_argument("--idle-seconds", type=float, default=40, help="how long to watch an idle worker (default: 40)")
    arguments = parser.parse_args()
    if not os.path.isdir("/proc/self"):  # noqa: PTH112  # nothing else is done with the path
        parser.exit(2, "the benchmarks read CPU time from /proc, which this system lacks; run them on Linux\n")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    print(_machine())
    benchmarks: dict[str, Callable[[], bool]] = {
        "messages": lambda: messages.run(arguments.rounds, arguments.seconds),
        "fifo": lambda: ways.run_fifo(arguments.rounds, arguments.seconds),
        "batches": lambda: ways.run_batches(arguments.rounds, arguments.seconds),
        "guards": lambda: guards.run(arguments.rounds, arguments.idle_seconds / 4),
        "once": lambda: once.run(arguments.rounds, arguments.seconds),
        "limits": limits.run,
        "publishing": lambda: publishing.run(max(1, arguments.rounds // 5), arguments.seconds),
        "idle": lambda: idle.run(arguments.idle_seconds),
        "startup": lambda: startup.run(max(1, arguments.rounds // 3)),
        "planning": lambda: planning.run(max(1, arguments.rounds // 5)),
    }
    asked = NAMES if arguments.what == "all" else [arguments.what]
    met = [benchmarks[name]() for name in asked]
    return 0 if all(met) else 1


def _machine() -> str:
    loop = "uvloop" if util.find_spec("uvloop") else "asyncio"
    versions = ", ".join(f"{library} {metadata.version(library)}" for library in LIBRARIES)
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {loop}; {versions}"


if __name__ == "__main__":
    sys.exit(main())
