"""Work is done once: what a handler's business key is, and the stores that remember who works on it and what is done."""

from worker.idempotency.address import open_store
from worker.idempotency.keys import IdempotencyKey, KeySource, fingerprint_of
from worker.idempotency.memory import MemoryStore
from worker.idempotency.store import Answer, Begun, Done, Mark, Other, Running, Store, StoreError
from worker.idempotency.together import Together

__all__ = [
    "Answer",
    "Begun",
    "Done",
    "IdempotencyKey",
    "KeySource",
    "Mark",
    "MemoryStore",
    "Other",
    "Running",
    "Store",
    "StoreError",
    "Together",
    "fingerprint_of",
    "open_store",
]
