"""What other ways through the engine cost: a FIFO queue, and a handler of batches, against one message at a time of a standard queue."""

import tempfile

from benchmarks.programs import Stub
from benchmarks.turns import Consumer, compare
from benchmarks.workers import BATCHES, FIFO, PLAIN, worker

__all__ = ["RATIO_GOAL", "run_batches", "run_fifo"]

RATIO_GOAL = 1.2


def run_fifo(rounds: int, seconds: float) -> bool:
    """Measure a FIFO queue in turns with a standard one, print, and return whether the goal is met."""
    return _run("fifo", "longshore, FIFO queue, 100 groups", FIFO, rounds, seconds)


def run_batches(rounds: int, seconds: float) -> bool:
    """Measure a handler of batches in turns with one of single messages, print, and return whether the goal is met."""
    return _run("batches", "longshore, batches of 200", BATCHES, rounds, seconds)


def _run(title: str, name: str, queue: str, rounds: int, seconds: float) -> bool:
    with (
        tempfile.TemporaryDirectory() as folder,
        Stub() as stub,
        worker(PLAIN, folder, stub) as plain,
        worker(queue, folder, stub) as other,
    ):
        consumers = [Consumer("longshore, standard queue", PLAIN, plain), Consumer(name, queue, other)]
        return compare(title, consumers, stub, rounds=rounds, seconds=seconds, limit=RATIO_GOAL)
