"""What is done but not surely deleted is remembered, within bounds."""

from worker.engine.memory import DoneMemory

HOUR = 3600


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time


def test_what_is_remembered_is_known_until_it_is_forgotten() -> None:
    """The message id is what is remembered: receipts change with every receive (S2)."""
    done = DoneMemory(Hands())
    done.remember("a")
    assert "a" in done
    assert "b" not in done
    done.forget("a")
    assert "a" not in done


def test_forgetting_what_was_never_remembered_does_nothing() -> None:
    done = DoneMemory(Hands())
    done.forget("a")
    assert len(done) == 0


def test_it_lasts_twelve_hours() -> None:
    """No message comes back later than that after a receive: SQS hides it for at most twelve hours (S2)."""
    clock = Hands()
    done = DoneMemory(clock)
    done.remember("a")
    clock.time = 12 * HOUR - 1
    assert "a" in done
    clock.time = 12 * HOUR
    assert "a" not in done


def test_remembering_again_starts_the_time_anew() -> None:
    clock = Hands()
    done = DoneMemory(clock)
    done.remember("a")
    clock.time = 11 * HOUR
    done.remember("a")
    clock.time = 20 * HOUR
    assert "a" in done


def test_ten_thousand_are_remembered_and_the_oldest_goes_first() -> None:
    """Memory stays bounded however long deletes fail (S2, D5)."""
    done = DoneMemory(Hands())
    for number in range(10_000):
        done.remember(str(number))
    done.remember("0")
    done.remember("one more")
    assert len(done) == 10_000
    assert "1" not in done
    assert "0" in done
    assert "one more" in done
