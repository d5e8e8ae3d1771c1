"""docs/tutorial.md is followed to the letter: its files, its commands in terminals, its Ctrl-C, and what it shows."""

import random
import re
import shlex
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from support.command import clean_environment
from support.tutorial import (
    Enter,
    Interrupt,
    Paste,
    Shows,
    Terminal,
    TutorialError,
    Walk,
    Write,
    follow,
    steps_of,
)

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
CURL = """
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[-1])
except urllib.error.HTTPError as error:
    answer = error
sys.stdout.buffer.write(answer.read())
"""


def free_ports(count: int) -> list[str]:
    """Return ports on which nobody listens, below those that systems take for outgoing connections."""
    found: list[str] = []
    for port in random.sample(range(20_000, 32_000), 1_000):
        if len(found) == count:
            break
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(str(port))
    return found


def on_free_ports(page: str) -> str:
    """Return the page with every port that it names replaced by a free one."""
    ports = sorted(set(re.findall(r"(?:127\.0\.0\.1:|port: |PORT=|--port )(\d+)", page)))
    free = dict(zip(ports, free_ports(len(ports)), strict=True))
    return re.sub(rf"\b({'|'.join(ports)})\b", lambda port: free[port[1]], page)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with as much of a checkout as the tutorial asks for: what `make setup` makes, led to this Python.

    A machine that builds may have no curl; then there is one that does what the tutorial does with it.
    """
    programs = tmp_path / "longshore" / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f"PATH={shlex.quote(str(programs))}:$PATH\n")
    scripts = {"python": [], "longshore": ["-c", "from worker.cli import main; main()"]}
    if shutil.which("curl") is None:
        scripts["curl"] = ["-c", CURL]
    for name, arguments in scripts.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *arguments])} "$@"\n')
        (programs / name).chmod(0o755)
    return tmp_path / "longshore"


@pytest.fixture
def terminals(checkout: Path) -> Iterator[Mapping[str, Terminal]]:
    """The terminals that the tutorial asks for, open in the checkout."""
    names, _ = steps_of(PAGE)
    with ExitStack() as stack:
        environment = clean_environment(checkout)
        yield {name: stack.enter_context(Terminal(checkout, environment)) for name in names}


def test_whoever_follows_the_tutorial_sees_what_it_shows(checkout: Path, terminals: Mapping[str, Terminal]) -> None:
    """All of it, in its order; every block is used, every command is typed and ends well, and nothing is left running."""

    def write(path: str, text: str) -> None:
        place = checkout.parent / "shop" / path
        place.parent.mkdir(exist_ok=True)
        place.write_text(text, encoding="utf-8")

    _, steps = steps_of(on_free_ports(PAGE))
    assert follow(steps, terminals, write) == Walk(blocks=blocks_of(PAGE), commands=commands_of(PAGE))
    for terminal in terminals.values():
        assert terminal.enter("jobs; echo here") == "here\n"


def blocks_of(page: str) -> int:
    """Count the fenced blocks by their first and last lines."""
    fences = [line for line in page.splitlines() if line.lstrip().startswith(("```", "~~~"))]
    assert fences[1::2] == ["```"] * (len(fences) // 2)
    return len(fences) // 2


def commands_of(page: str) -> int:
    """Count the lines of `sh` blocks that do not continue the one before."""
    count, is_inside, continues = 0, False, False
    for line in page.splitlines():
        if line.startswith("```"):
            is_inside = line == "```sh"
        elif is_inside:
            count += not continues
            continues = line.endswith("\\")
    return count


def test_every_kind_of_step_is_read() -> None:
    page = """
Open two of them. Call them **one** and **two**. Write `a/b.py`:

```python
print(1)
```

In each of the terminals **one** and **two**:

```sh
cd a
python b.py \\
  --now
```

```text
1
```

In terminal **one**, and let it run:

```sh
serve
```

Terminal **one** shows:

```text
up
```

In terminal **two**, until it shows this:

```sh
ask
```

```text
yes
```

Paste the `export` line of terminal **one** into terminal **two**. Press Ctrl-C in terminal
**one**:

```text
gone
```
"""
    assert steps_of(page) == (
        ("one", "two"),
        [
            Write("a/b.py", "print(1)\n"),
            Enter(("one", "two"), ("cd a", "python b.py   --now"), "ends", "1\n"),
            Enter(("one",), ("serve",), "runs"),
            Shows("one", "up\n"),
            Enter(("two",), ("ask",), "repeats", "yes\n"),
            Paste("one", "two"),
            Interrupt("one", "gone\n"),
        ],
    )
    assert (blocks_of(page), commands_of(page)) == (8, 4)


@pytest.mark.parametrize(
    "page",
    [
        "Try this:\n\n```sh\nrm -r /\n```\n",
        "```text\nhello\n```\n",
        "In terminal **one**, perhaps:\n\n```sh\nls\n```\n",
        "In terminal **one**:\n\n```python\nprint(1)\n```\n",
        "In terminal **one**:\n\n```sh\nls\n```\n\n```text\na\n```\n\n```text\nb\n```\n",
        "Press Ctrl-C in the window.",
        "Write `a.py` as you like.",
    ],
)
def test_what_nobody_could_follow_is_refused(page: str) -> None:
    with pytest.raises(TutorialError, match="nobody can tell what"):
        steps_of(page)


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("echo one; echo three", "one\ntwo\n"),
        ("echo one; echo two; echo three", "one\n...\ntwo\n"),
        ("echo one", ""),
        ("echo 1.5", "1...6\n"),
        ("false", ""),
        ("nothing-of-that-name", "...\n"),
    ],
)
def test_what_a_command_does_not_show_is_found_out(tmp_path: Path, command: str, shown: str) -> None:
    """Also what it shows beside, and that it failed."""
    with (
        Terminal(tmp_path, clean_environment(tmp_path)) as terminal,
        pytest.raises(TutorialError, match=r"it (showed|ended)"),
    ):
        follow([Enter(("one",), (command,), "ends", shown)], {"one": terminal}, lambda *_: None)


def test_a_command_that_does_not_run_on_is_found_out(tmp_path: Path) -> None:
    with Terminal(tmp_path, clean_environment(tmp_path)) as terminal:
        follow([Enter(("one",), ("echo up; sleep 0.1",), "runs", "up\n")], {"one": terminal}, lambda *_: None)
        with pytest.raises(TutorialError, match="it ended and showed instead"):
            follow([Shows("one", "still up\n")], {"one": terminal}, lambda *_: None)
        with pytest.raises(TutorialError, match="nothing runs there any more"):
            follow([Interrupt("one")], {"one": terminal}, lambda *_: None)
