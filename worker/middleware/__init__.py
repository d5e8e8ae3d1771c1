"""What runs around every handler call of a router: its protocol, and three that are ready to use."""

from worker.middleware.durations import timing
from worker.middleware.logs import logging
from worker.middleware.protocol import CallNext, Middleware
from worker.middleware.retries import retry_in_place

__all__ = ["CallNext", "Middleware", "logging", "retry_in_place", "timing"]
