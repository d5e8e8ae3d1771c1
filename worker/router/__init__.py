"""What handler authors touch: `Router`, and the `Route` that the engine calls for each event type."""

from worker.router.batch import Batch
from worker.router.handler import ContractError, HandlerFunction
from worker.router.loading import load_router
from worker.router.route import Route
from worker.router.routing import Lifespan, Router

__all__ = ["Batch", "ContractError", "HandlerFunction", "Lifespan", "Route", "Router", "load_router"]
