"""Limits: how many calls, or how many a second, something downstream takes; in one process or over the whole fleet."""

from worker.limits.limiter import Limiter, Permit, granted, withdraw
from worker.limits.local import LocalLimiter
from worker.limits.opened import ask_store, open_limits
from worker.limits.shared import SharedLimiter
from worker.limits.store import Answer, Claim, PermitStore, StoreError

__all__ = [
    "Answer",
    "Claim",
    "Limiter",
    "LocalLimiter",
    "Permit",
    "PermitStore",
    "SharedLimiter",
    "StoreError",
    "ask_store",
    "granted",
    "open_limits",
    "withdraw",
]
