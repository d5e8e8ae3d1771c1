"""Consumers that take turns on one endless stub: CPU per message of each, and what one costs of the other."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.figures import Figures, goal
from benchmarks.programs import CONSUMER_CORE, STUB_CORE, Program, Stub

__all__ = ["Consumer", "compare", "surcharge"]

WARM_UP_MESSAGES = 5_000
HAND_OVER_SECONDS = 0.3
"""The receive loops of whoever's turn it is are all open by then."""
NOBODY = "nobody"


@dataclass
class Consumer:
    """One of them, and what it cost in each round."""

    name: str
    queue: str
    program: Program
    cpu_seconds: Figures = field(default_factory=Figures)
    """Per 10,000 messages received, handled and deleted."""
    rate: Figures = field(default_factory=Figures)
    """Messages per second."""
    load: Figures = field(default_factory=Figures)
    """Share of its core, in percent."""
    stub_load: Figures = field(default_factory=Figures)
    rss_megabytes: Figures = field(default_factory=Figures)


def compare(title: str, consumers: Sequence[Consumer], stub: Stub, *, rounds: int, seconds: float, limit: float) -> bool:  # fmt: skip
    """Measure the first, which is the yardstick, and the second in turns; print, and return whether the ratio is within its limit."""
    yardstick, measured = _in_turns(title, consumers, stub, rounds, seconds)
    ratio = measured.median / yardstick.median
    by_round = Figures([ours / theirs for ours, theirs in zip(measured.values, yardstick.values, strict=True)])
    print(f"ratio round by round, which a noisy machine disturbs less: {by_round.spread()}")
    print(f"ratio of the medians: {ratio:.2f}; {goal(ratio, limit, '')}")
    return ratio <= limit


def surcharge(title: str, consumers: Sequence[Consumer], stub: Stub, *, rounds: int, seconds: float, limit: float) -> bool:  # fmt: skip
    """Measure both in turns; print, and return whether a message costs the second so few microseconds more than the first."""
    yardstick, measured = _in_turns(title, consumers, stub, rounds, seconds)
    more = Figures([(ours - theirs) * 100 for ours, theirs in zip(measured.values, yardstick.values, strict=True)])
    print(f"CPU us per message more, round by round: {more.spread(0)}; {goal(more.median, limit, ' us')}")
    return more.median <= limit


def _in_turns(
    title: str, consumers: Sequence[Consumer], stub: Stub, rounds: int, seconds: float
) -> tuple[Figures, Figures]:
    """Measure two consumers and print all figures; return the CPU seconds of each, per 10,000 messages."""
    turns = list(consumers)
    for consumer in turns:
        stub.supply(consumer.queue)
        stub.wait_until_deleted(WARM_UP_MESSAGES, consumer.queue, consumer.program)
    for _ in range(rounds):
        for consumer in turns:
            _measure(consumer, stub, seconds)
        turns.reverse()
    for consumer in turns:
        _dismiss(consumer, stub)
    _print(title, consumers, rounds, seconds)
    first, second = consumers
    return first.cpu_seconds, second.cpu_seconds


def _measure(consumer: Consumer, stub: Stub, seconds: float) -> None:
    """Give the consumer its turn and add one round to its figures; the other waits in its long polls."""
    program = consumer.program
    stub.supply(NOBODY)
    stub.wait_until_settled()
    stub.supply(consumer.queue)
    time.sleep(HAND_OVER_SECONDS)
    began, deleted = time.monotonic(), stub.deleted(consumer.queue)
    cpu, stub_cpu = program.cpu_seconds(), stub.cpu_seconds()
    time.sleep(seconds)
    messages = stub.deleted(consumer.queue) - deleted
    cpu, stub_cpu = program.cpu_seconds() - cpu, stub.cpu_seconds() - stub_cpu
    elapsed = time.monotonic() - began
    consumer.cpu_seconds.values.append(cpu / messages * 10_000)
    consumer.rate.values.append(messages / elapsed)
    consumer.load.values.append(cpu / elapsed * 100)
    consumer.stub_load.values.append(stub_cpu / elapsed * 100)
    consumer.rss_megabytes.values.append(program.rss_bytes() / 1e6)


def _dismiss(consumer: Consumer, stub: Stub) -> None:
    """End the consumer while it has messages: else its long polls have to end first."""
    stub.supply(consumer.queue)
    consumer.program.end()


def _print(title: str, consumers: Sequence[Consumer], rounds: int, seconds: float) -> None:
    shared = " (one core for both: the figures are of little use)" if CONSUMER_CORE == STUB_CORE else ""
    print(f"{title}: {rounds} rounds of {seconds:g} s each, in turns, consumer and stub on a core each{shared}")
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
