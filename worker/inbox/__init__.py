"""The inbox: a handler's effect and the mark that it happened, in one transaction of the handler's own."""

from worker.inbox.once import IDEMPOTENCY_KEY, Holding, Mark, Once, mark_key

__all__ = ["IDEMPOTENCY_KEY", "Holding", "Mark", "Once", "mark_key"]
