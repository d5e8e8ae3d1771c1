"""A Docker engine, the images, and the compose file at work: each started once, on first use, and ended with the tests."""

from collections.abc import Iterator, Mapping

import pytest
from support.docker_engine import Engine
from support.images import build_images
from support.stack import Stack


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The engine that runs, or one of our own."""
    with Engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def images(engine: Engine) -> Mapping[str, str]:
    """Every image is there; the variables that name them."""
    return build_images(engine)


@pytest.fixture(scope="session")
def stack(engine: Engine, images: Mapping[str, str]) -> Iterator[Stack]:
    """The compose file, up with three workers."""
    with Stack(engine, images) as stack:
        yield stack
