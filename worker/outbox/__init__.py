"""The outbox: events that are stored in a transaction of their author's, and published by a relay once it is committed."""

from worker.outbox.publish import publish, publish_sync

__all__ = ["publish", "publish_sync"]
