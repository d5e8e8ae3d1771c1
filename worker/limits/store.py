"""`PermitStore`: where all processes count together. `limits.redis` and `testing.permits` implement it; one suite tests both."""

from typing import NamedTuple, Protocol

__all__ = ["Answer", "Claim", "PermitStore", "StoreError"]


class StoreError(Exception):
    """The store did not answer, or not as it should; whether it did what it was asked is not known."""


class Claim(NamedTuple):
    """What one process says of itself: always the whole truth, so an answer that was lost costs nothing."""

    owner: str
    number: int
    """Counts the owner's claims: one that arrives after a later one is refused."""
    held: int
    """Permits that it has."""
    wanted: int
    """Permits that it would take; 0 leaves the line."""
    places: int | None
    """How many permits there are in all; `None` when only rates are counted."""
    lease_seconds: float
    """For how long it keeps them without another claim."""
    is_leaving: bool = False
    """It gives back everything and will not be heard of again."""
    is_returning: bool = False
    """It was answered within its lease. A store that does not know it has lost its data: for half a lease it gives nothing and hears what is held."""


class Answer(NamedTuple):
    """What the store says to a claim."""

    kept: int
    """How many of the permits that it holds it may keep; those of an owner that was silent for too long may be another's."""
    granted: int
    """Permits on top of them; 0 to one who wants some means that it waits in line."""
    others_wait: int
    """Owners that wait in line, besides this one."""
    owners: int
    """Owners that were heard of lately, this one too."""
    look_again_seconds: float
    """When the permits of another owner end, if it is not heard of."""


class PermitStore(Protocol):
    """Permits as leases with an owner and an expiry; one line for all who wait, served in turn."""

    async def claim(self, claim: Claim) -> Answer:
        """Keep, take and give back in one step; raises `StoreError`."""

    async def until_woken(self, owner: str, seconds: float) -> None:
        """Return when there may be a permit for the owner, which is in line, or after so many seconds; raises `StoreError`."""

    async def reserve(self, per_second: float, most_seconds: float) -> float | None:
        """Take the next moment at which a call may start, and return the seconds until then.

        `None` takes none, as it lies further away than `most_seconds`. Raises `StoreError`.
        """

    async def doubts(self) -> list[str]:
        """Return a sentence for each thing about it that works, but loses permits; raises nothing."""

    async def close(self) -> None:
        """End the connections."""
