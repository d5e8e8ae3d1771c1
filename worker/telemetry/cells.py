"""The numbers behind the metrics: plain objects that verbs change in place and a scrape reads."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from worker.telemetry.declared import Declared

__all__ = ["Cell", "Computed", "Number", "Reading", "Sheet", "Spread"]


class Number:
    """A count or a level; it starts at 0."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Reading:
    """What someone else told us last; nothing is exposed before that, because 0 would be an answer."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: int | None = None


class Computed:
    """A value that is worked out when it is read."""

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read

    @property
    def value(self) -> float:
        """The value at this moment."""
        return self._read()


class Spread:
    """How values are distributed: a count per bucket and their sum. Without bounds it is one bucket."""

    __slots__ = ("bounds", "counts", "last", "sum")

    def __init__(self, bounds: tuple[float, ...] = ()) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last one is what exceeds every bound
        self.sum = 0.0
        self.last: float | None = None

    def observe(self, value: float) -> None:
        """Count one value; a clock that ran backwards counts as 0."""
        if value < 0:
            value = 0.0
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value
        self.last = value

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """The mean of all values; `None` before the first."""
        count = self.count
        return self.sum / count if count else None

    def quantile(self, share: float) -> float | None:
        """The value that `share` of all values stay under, taken as evenly spread within its bucket; `None` before the first."""
        wanted, below = share * self.count, 0
        lower = 0.0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if count and below + count >= wanted:
                return lower + (bound - lower) * (wanted - below) / count
            below += count
            lower = bound
        return lower if self.count else None

    def add(self, other: "Spread") -> None:
        """Count all values of another one with the same bounds."""
        self.counts = [mine + more for mine, more in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum

    def since(self, earlier: "Spread | None") -> "Spread":
        """Return what was counted since an earlier copy; everything when there is none."""
        result = Spread(self.bounds)
        before = earlier or result
        result.counts = [now - then for now, then in zip(self.counts, before.counts, strict=True)]
        result.sum = self.sum - before.sum
        return result


Cell = Number | Reading | Computed | Spread
_C = TypeVar("_C", Number, Reading, Computed, Spread)


class Sheet:
    """The cells of one owner, a queue or the process, each with its labels."""

    def __init__(self, owner: Mapping[str, str]) -> None:
        self._owner = dict(owner)
        self._cells: dict[str, list[tuple[dict[str, str], Cell]]] = {}

    def put(self, declared: Declared, cell: _C, **labels: str) -> _C:
        """Take a cell in as one series of the metric and return it."""
        self._cells.setdefault(declared.name, []).append(({**self._owner, **labels}, cell))
        return cell

    def one(self, declared: Declared, kind: Callable[[], _C]) -> _C:
        """Make the only series of a metric without labels of its own."""
        return self.put(declared, kind())

    def each(self, declared: Declared, kind: Callable[[], _C]) -> dict[str, _C]:
        """Make every series of a metric with one label, by label value."""
        ((label, values),) = declared.labels.items()
        return {value: self.put(declared, kind(), **{label: value}) for value in values}

    def series(self, declared: Declared) -> Iterator[tuple[dict[str, str], Cell]]:
        """Yield the metric's cells with all their labels."""
        yield from self._cells.get(declared.name, ())
