"""`longshore demo`: the fleet at work on one machine, and the books that show that nothing was lost."""

from worker.demo.play import Demo, Script
from worker.demo.show import Show

__all__ = ["Demo", "Script", "Show"]
