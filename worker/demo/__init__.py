"""`longshore demo`: the fleet at work on one machine, and the books that show that nothing was lost.

The names are imported when they are first used: `visit`, which looks at a fleet elsewhere, does without the embedded AWS.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.demo.play import Demo, Script
    from worker.demo.show import Show

__all__ = ["Demo", "Script", "Show"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from worker.demo import play, show

    return getattr(play, name, None) or getattr(show, name)
