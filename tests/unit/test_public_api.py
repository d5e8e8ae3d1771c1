"""`import worker` gives every public name, and costs nothing until one is used."""

import subprocess
import sys

import pytest

import worker


def test_every_public_name_is_there_and_documented() -> None:
    for name in worker.__all__:
        assert getattr(worker, name).__doc__, name
        assert name in dir(worker)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Batches'"):
        _ = worker.Batches  # type: ignore[attr-defined]  # the mistake


def test_importing_the_package_imports_nothing_else() -> None:
    """A command that needs no handler starts at once: no pydantic, no structlog, no AWS."""
    code = "import sys, worker; print([name for name in ('pydantic', 'structlog', 'orjson', 'worker.router') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_a_router_needs_no_aws_library() -> None:
    """What handler authors import stays small: no botocore, no aiohttp, no stamina until something asks for it."""
    code = "import sys; from worker import Router; print([name for name in ('botocore', 'aiohttp', 'stamina', 'typer') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
