"""`longshore demo`: a fleet at work on one machine, and the books that show that nothing was lost.

The names are imported when they are first used: `visit`, which looks at a fleet elsewhere, does without the embedded AWS.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.demo.demo import Demo
    from worker.demo.distributed_queue.play import Burst
    from worker.demo.play import Script
    from worker.demo.show import Show

__all__ = ["Burst", "Demo", "Script", "Show"]

_HOMES = {
    "Burst": "worker.demo.distributed_queue.play",
    "Demo": "worker.demo.demo",
    "Script": "worker.demo.play",
    "Show": "worker.demo.show",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
