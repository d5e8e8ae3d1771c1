"""CPU per message: the worker with everything on against a bare aiobotocore loop, on the same endless stub, in turns."""

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.figures import Figures, goal
from benchmarks.programs import CONSUMER_CORE, LONGSHORE, STUB_CORE, Program, Stub
from benchmarks.sqs import ACCOUNT

__all__ = ["RATIO_GOAL", "run"]

RATIO_GOAL = 1.3
WARM_UP_MESSAGES = 4_000
WARM_UP_SECONDS = 1.0
QUEUE = "order-processing"
FLEET = f"""
service: benchmark
server: {{port: 0}}
log: {{format: json, level: info}}
queues:
  {QUEUE}:
    handlers: benchmarks.handlers:router
    concurrency: 40
    handler_timeout_seconds: 20
"""


@dataclass
class Consumer:
    """One of the two, and what it cost in each round."""

    name: str
    start: Callable[[Stub, Path], Program]
    cpu_seconds: Figures = field(default_factory=Figures)
    """Per 10,000 messages received, handled and deleted."""
    rate: Figures = field(default_factory=Figures)
    """Messages per second."""
    load: Figures = field(default_factory=Figures)
    """Share of its core, in percent."""
    stub_load: Figures = field(default_factory=Figures)
    rss_megabytes: Figures = field(default_factory=Figures)


def run(rounds: int, seconds: float) -> bool:
    """Measure in turns, print, and return whether the goal is met."""
    bare, worker = consumers = (Consumer("aiobotocore", _bare), Consumer("longshore", _worker))
    with tempfile.TemporaryDirectory() as folder, Stub() as stub:
        (Path(folder) / "fleet.yaml").write_text(FLEET)
        for number in range(rounds):
            for consumer in consumers if number % 2 == 0 else reversed(consumers):
                _measure(consumer, stub, Path(folder), seconds)
    _print(consumers, rounds, seconds)
    ratio = worker.cpu_seconds.median / bare.cpu_seconds.median
    print(f"ratio of the medians: {ratio:.2f}; {goal(ratio, RATIO_GOAL, '')}")
    return ratio <= RATIO_GOAL


def _measure(consumer: Consumer, stub: Stub, folder: Path, seconds: float) -> None:
    """Run the consumer, leave its start out, and add one round to its figures."""
    with consumer.start(stub, folder) as program:
        stub.wait_until_deleted(stub.counted()["deleted"] + WARM_UP_MESSAGES, program)
        time.sleep(WARM_UP_SECONDS)
        began, deleted = time.monotonic(), stub.counted()["deleted"]
        cpu, stub_cpu = program.cpu_seconds(), stub.cpu_seconds()
        time.sleep(seconds)
        messages = stub.counted()["deleted"] - deleted
        cpu, stub_cpu = program.cpu_seconds() - cpu, stub.cpu_seconds() - stub_cpu
        elapsed = time.monotonic() - began
        consumer.rss_megabytes.values.append(program.rss_bytes() / 1e6)
    consumer.cpu_seconds.values.append(cpu / messages * 10_000)
    consumer.rate.values.append(messages / elapsed)
    consumer.load.values.append(cpu / elapsed * 100)
    consumer.stub_load.values.append(stub_cpu / elapsed * 100)


def _bare(stub: Stub, folder: Path) -> Program:
    del folder
    url = f"{stub.endpoint}/{ACCOUNT}/{QUEUE}"
    return Program((sys.executable, "-m", "benchmarks.bare", url), CONSUMER_CORE, extra=stub.environment)


def _worker(stub: Stub, folder: Path) -> Program:
    # The log line of each message is rendered and written; what a disk makes of it is not Longshore's.
    command = (*LONGSHORE, "run", "--config", str(folder / "fleet.yaml"))
    return Program(command, CONSUMER_CORE, extra=stub.environment)


def _print(consumers: tuple[Consumer, ...], rounds: int, seconds: float) -> None:
    shared = " (one core for both: the figures are of little use)" if CONSUMER_CORE == STUB_CORE else ""
    print(f"messages: {rounds} rounds of {seconds:g} s each, in turns, consumer and stub on a core each{shared}")
    print(f"{'':24}{'min':>9}{'median':>9}{'max':>9}")
    for consumer in consumers:
        print(consumer.name)
        _print_figures("CPU s per 10,000", consumer.cpu_seconds, digits=3)
        _print_figures("messages per second", consumer.rate)
        _print_figures("% of its core", consumer.load)
        _print_figures("% of the stub's core", consumer.stub_load)
        _print_figures("RSS MB", consumer.rss_megabytes)


def _print_figures(name: str, figures: Figures, *, digits: int = 0) -> None:
    print(f"  {name:22}{figures.spread(digits)}")
