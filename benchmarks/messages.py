"""CPU per message: the worker with everything on against a bare aiobotocore loop, on the same endless stub, in turns."""

import sys
import tempfile

from benchmarks.programs import CONSUMER_CORE, Program, Stub
from benchmarks.sqs import ACCOUNT
from benchmarks.turns import Consumer, compare
from benchmarks.workers import PLAIN, worker

__all__ = ["RATIO_GOAL", "run"]

RATIO_GOAL = 1.3
BARE_QUEUE = "bare"


def run(rounds: int, seconds: float) -> bool:
    """Measure in turns, print, and return whether the goal is met."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Stub() as stub,
        _bare(stub) as bare,
        worker(PLAIN, folder, stub) as plain,
    ):
        consumers = [Consumer("aiobotocore", BARE_QUEUE, bare), Consumer("longshore", PLAIN, plain)]
        return compare("messages", consumers, stub, rounds=rounds, seconds=seconds, limit=RATIO_GOAL)


def _bare(stub: Stub) -> Program:
    url = f"{stub.endpoint}/{ACCOUNT}/{BARE_QUEUE}"
    return Program((sys.executable, "-m", "benchmarks.bare", url), CONSUMER_CORE, extra=stub.environment)
