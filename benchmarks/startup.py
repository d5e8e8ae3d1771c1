"""What starting costs: CPU of `longshore --help`, and of what `longshore run` loads before its first receive."""

import os
import sys

from benchmarks.figures import Figures, goal
from benchmarks.programs import LONGSHORE, environment

__all__ = ["HELP_GOAL_SECONDS", "run"]

HELP_GOAL_SECONDS = 0.3
COMMANDS = {
    "longshore --help": (*LONGSHORE, "--help"),
    "longshore run, imports": (sys.executable, "-c", "import worker.cli.run"),
    "aiobotocore alone": (sys.executable, "-c", "import aiobotocore.session"),
}


def run(rounds: int) -> bool:
    """Measure, print, and return whether the goal is met."""
    cpu = {name: Figures() for name in COMMANDS}
    memory = {name: Figures() for name in COMMANDS}
    for _ in range(rounds):
        for name, command in COMMANDS.items():
            seconds, megabytes = _cost(command)
            cpu[name].values.append(seconds)
            memory[name].values.append(megabytes)
    print(f"startup: {rounds} rounds")
    print(f"{'  CPU s':26}{'min':>9}{'median':>9}{'max':>9}{'peak MB':>9}")
    for name, figures in cpu.items():
        print(f"  {name:24}{figures.spread()}{memory[name].median:>9.0f}")
    seconds = cpu["longshore --help"].median
    print(f"  {goal(seconds, HELP_GOAL_SECONDS, ' s')}")
    return seconds <= HELP_GOAL_SECONDS


def _cost(command: tuple[str, ...]) -> tuple[float, float]:
    """Run the command to its end; return its CPU seconds and the most memory that it had, in MB."""
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawn(command[0], command, environment(), file_actions=silent)
    _, status, used = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)!r} failed")
    return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6
