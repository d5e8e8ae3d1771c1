"""A service of a user's own: what `longshore new` writes."""

from worker.scaffold.service import scaffold

__all__ = ["scaffold"]
