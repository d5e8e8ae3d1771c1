"""Figures of several rounds, as they are printed: the median, and how far it can be trusted."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Figures", "goal"]


@dataclass
class Figures:
    """One figure, measured in every round."""

    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle of all rounds."""
        return statistics.median(self.values)

    def spread(self, digits: int = 2) -> str:
        """Return `min median max`, aligned."""
        found: Sequence[float] = (min(self.values), self.median, max(self.values))
        return "".join(f"{value:>9.{digits}f}" for value in found)


def goal(value: float, limit: float, unit: str) -> str:
    """Say whether a figure is within its goal: `goal: at most 85 MB: met`."""
    return f"goal: at most {limit:g}{unit}: {'met' if value <= limit else 'MISSED'}"
