"""`longshore demo`: the fleet at work on one machine, and the books that show that nothing was lost."""

from worker.demo.show import Show
from worker.demo.stage import Demo

__all__ = ["Demo", "Show"]
