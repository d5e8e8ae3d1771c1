"""From `module:attribute` to a router, and one sentence for each way that can go wrong (X1)."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from worker import ConfigError, Router
from worker.router import load_router

Write = Callable[[str, str], None]

GOOD = """
from worker import Message, Router
router = Router()
@router.on("order.created")
async def handle(message: Message[str]) -> None: ...
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module into an empty working directory, which is forgotten with its modules afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    yield write
    for name in set(sys.modules) - known:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def refusal(reference: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_router(reference)
    text = str(caught.value)
    assert "\n" not in text
    assert reference in text
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return text


def test_the_working_directory_is_importable(write: Write) -> None:
    write("load_good.py", GOOD)
    router = load_router("load_good:router")
    assert isinstance(router, Router)
    assert load_router("load_good:router") is router


def test_a_package_may_hold_the_module(write: Write) -> None:
    write("load_package/__init__.py", "")
    write("load_package/orders.py", GOOD)
    assert load_router("load_package.orders:router").routes[0].pattern == "order.created"


@pytest.mark.parametrize(
    "reference", ["", "orders", "orders.router", ":router", "orders:", "a b:c", ".a:b", "a:b.c", "a:b\n"]
)
def test_another_form_is_refused_with_an_example(reference: str) -> None:
    with pytest.raises(ConfigError, match=r"is not of the form `module:attribute`, such as `orders\.handlers:router`"):
        load_router(reference)


def test_a_missing_module_is_told_with_the_nearest_name(write: Write) -> None:
    write("load_orders.py", GOOD)
    write("load_shop/__init__.py", "")
    write("load_shop/orders.py", GOOD)
    assert "there is no module `load_order`, did you mean `load_orders`?" in refusal("load_order:router")
    assert "there is no module `load_shop.oders`, did you mean `orders`?" in refusal("load_shop.oders:router")
    assert "there is no module `load_orders.x`" in refusal("load_orders.x:router")
    assert "there is no module `qqqqqqqq`; it must be installed" in refusal("qqqqqqqq.orders:router")


def test_a_missing_attribute_is_told_with_the_nearest_router(write: Write) -> None:
    write("load_good.py", GOOD)
    assert "the module has no `routre`, did you mean `router`?" in refusal("load_good:routre")


def test_what_is_no_router_is_told(write: Write) -> None:
    write("load_good.py", GOOD)
    assert "names a function, not a Router" in refusal("load_good:handle")
    assert "names a type, not a Router, did you mean `router`?" in refusal("load_good:Router")


def test_a_router_without_handlers_is_told(write: Write) -> None:
    write("load_empty.py", "from worker import Router\nrouter = Router()\n")
    assert "the router has no handlers" in refusal("load_empty:router")


def test_an_annotation_that_names_nothing_is_told(write: Write) -> None:
    write("load_named.py", "from __future__ import annotations\n" + GOOD.replace("[str]", "[Order]"))
    assert "(load_named.py:5) has an annotation that cannot be resolved (name 'Order' is not defined)" in refusal(
        "load_named:router"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import os\n\n1 / 0\n", "cannot be imported: ZeroDivisionError: division by zero (load_broken.py:3)"),
        ("import json\njson.loads('{')\n", "(load_broken.py:2)"),
        ("x = 1\nimport nowhere_at_all\n", "ModuleNotFoundError: No module named 'nowhere_at_all' (load_broken.py:2)"),
        ("from json import nothing_of_that_name\n", "ImportError: cannot import name"),
        ("def f(:\n", "SyntaxError: invalid syntax"),
        ("raise SystemExit(3)\n", "SystemExit: 3 (load_broken.py:1)"),
        ("raise ValueError('two\\nlines')\n", "ValueError: two lines (load_broken.py:1)"),
        ("from worker import Router\nRouter(middleware=[1])\n", "cannot be called with a message and `call_next`"),
        ("from worker import Router\nRouter(middleware=[1])\n", "(load_broken.py:2)"),
        (GOOD.replace("order.created", "*.x"), "handle` (load_broken.py:4) has the pattern '*.x'"),
    ],
)
def test_an_import_that_fails_is_told_with_its_place(write: Write, text: str, told: str) -> None:
    write("load_broken.py", text)
    assert told in refusal("load_broken:router")


def test_a_handler_names_its_place_once(write: Write) -> None:
    write("load_broken.py", GOOD.replace("order.created", "*.x"))
    assert refusal("load_broken:router").count("load_broken.py:") == 1
