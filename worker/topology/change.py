"""What was done to AWS, one line each."""

from dataclasses import dataclass

__all__ = ["Change"]


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that was made or corrected."""

    action: str
    """`create` or `update`."""
    kind: str
    """`topic`, `queue`, `queue policy` or `subscription`."""
    name: str
    detail: str = ""
    """Which attributes, where it is an update."""

    def __str__(self) -> str:
        return f"{self.action} {self.kind} {self.name}" + (f" ({self.detail})" if self.detail else "")
