"""The Python in the README and in the pages under docs/ runs: the blocks of a page are one module, and its tests pass."""

import asyncio
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def python_of(text: str) -> str:
    """Return the Python blocks of a page on the lines where they stand, so that a traceback points into the page."""
    code = ""
    for block in BLOCK.finditer(text):
        code += "\n" * (text.count("\n", 0, block.start(1)) - code.count("\n")) + block[1]
    return code


PAGES = {
    str(page.relative_to(ROOT)): code
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if (code := python_of(page.read_text()))
}


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """A page as a module, its blocks executed."""
    module = ModuleType("page")
    sys.modules["page"] = module
    exec(compile(PAGES[request.param], ROOT / request.param, "exec", dont_inherit=True), vars(module))  # noqa: S102 - our own pages
    yield module
    del sys.modules["page"]


def test_the_examples_of_a_page_run(page: ModuleType) -> None:
    for name, test in list(vars(page).items()):
        if name.startswith("test_"):
            result = test()
            if inspect.iscoroutine(result):
                asyncio.run(result)


def test_the_page_about_handlers_has_tests_of_its_own() -> None:
    """Else the test above would prove little."""
    assert PAGES["docs/how-to/write-a-handler.md"].count("\nasync def test_") == 6


def test_the_readme_shows_a_handler_and_the_two_commands() -> None:
    """Its first screen is what a newcomer copies."""
    assert "@router.on(" in PAGES["README.md"]
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text


def test_a_block_keeps_its_line() -> None:
    assert (
        python_of("a\n\n```python\nb\nc\n```\n```yaml\nd: 1\n```\n\n```python\ne\n```\n")
        == "\n\n\nb\nc\n\n\n\n\n\n\ne\n"
    )
