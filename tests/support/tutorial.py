"""The tutorial as its reader follows it: files to write, commands to type into terminals, and what these then show.

A fenced block is told by the words before it. `Write NAME:` stands before a file, `In terminal **NAME**:` before commands
that end, `..., and let it run:` before one that stays, `..., until it shows this:` before commands that are typed again until
then, and `Terminal **NAME** shows:` before what a running one shows next. A `text` block without such words belongs to
what was done last. In what is shown, `...` is what differs or was left out: within a line, or lines of any number.
"""

import os
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

__all__ = ["Enter", "Interrupt", "Paste", "Shows", "Terminal", "TutorialError", "Walk", "Write", "follow", "steps_of"]

PATIENCE_SECONDS = 60.0
"""After this, what is awaited is given up."""

_NAME = r"\*\*(\w+)\*\*"
_NAMES = r"\*\*\w+\*\*(?:(?:,|\ and)\ \*\*\w+\*\*)*"
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_DIRECTIVE = re.compile(
    rf"""Call\ them\ (?P<declared>{_NAMES})\.
    | [Pp]ress\ Ctrl-C\ in\ terminal\ \*\*(?P<interrupted>\w+)\*\*
    | Paste\ the\ `export`\ line\ of\ terminal\ \*\*(?P<source>\w+)\*\*\ into\ terminal\ \*\*(?P<target>\w+)\*\*
    | Write\ `(?P<file>[\w./]+)`:$
    | Terminal\ \*\*(?P<showing>\w+)\*\*\ shows:$
    | In\ (?:each\ of\ the\ )?terminals?\ (?P<entered>{_NAMES})
      (?P<manner>|,\ begin\ in\ the\ checkout|,\ and\ let\ it\ run|,\ until\ it\ shows\ this):$""",
    re.VERBOSE,
)
_LOOKS_LIKE_ONE = re.compile(r"\*\*|Write `|[Pp]ress Ctrl-C|Paste")
_SHELL = ("bash", "--norc", "--noprofile", "--noediting", "-i")
_IN_A_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
)
_PROMPT = "<ended with $?>"
_ENDED = re.compile(r"<ended with (\d+)>$")
_COLOR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_MANNERS: Mapping[str, Literal["ends", "runs", "repeats"]] = {
    ", and let it run": "runs",
    ", until it shows this": "repeats",
}


class TutorialError(Exception):
    """The page says something that nobody could follow, or shows what does not happen."""


@dataclass(frozen=True)
class Write:
    """Write a file."""

    path: str
    text: str


@dataclass(frozen=True)
class Enter:
    """Type commands into each of the terminals; `shown` is all that they print, or, of one that runs on, what it must print."""

    terminals: tuple[str, ...]
    commands: tuple[str, ...]
    manner: Literal["ends", "runs", "repeats"] = "ends"
    shown: str = ""


@dataclass(frozen=True)
class Shows:
    """See something in a terminal where a command runs."""

    terminal: str
    shown: str


@dataclass(frozen=True)
class Interrupt:
    """Press Ctrl-C; the command must end with status 0."""

    terminal: str
    shown: str = ""


@dataclass(frozen=True)
class Paste:
    """Copy the last `export` line of one terminal into another."""

    source: str
    target: str


Step = Write | Enter | Shows | Interrupt | Paste


def steps_of(page: str) -> tuple[tuple[str, ...], list[Step]]:
    """Return the names of the terminals and all steps of a page; `TutorialError` for a block or words that are neither."""
    declared: tuple[str, ...] = ()
    steps: list[Step] = []
    at = 0
    for fence in [*_FENCE.finditer(page), None]:
        prose = " ".join(page[at : fence.start() if fence else len(page)].split())
        lead: Mapping[str, str] = {}
        if _LOOKS_LIKE_ONE.search(_DIRECTIVE.sub("", prose)):
            raise TutorialError(f"nobody can tell what to do here: {prose}")
        for told in _DIRECTIVE.finditer(prose):
            lead = {name: value for name, value in told.groupdict().items() if value is not None}
            declared = declared or _names(lead.get("declared", ""))
            steps += _deeds(lead)
            lead = lead if told.end() == len(prose) else {}
        if fence:
            _take(fence, lead, steps)
            at = fence.end()
    return declared, steps


def _names(text: str) -> tuple[str, ...]:
    return tuple(re.findall(_NAME, text))


def _deeds(lead: Mapping[str, str]) -> Iterator[Step]:
    """Yield the step that words tell which need no block."""
    match lead:
        case {"interrupted": terminal}:
            yield Interrupt(terminal)
        case {"source": source, "target": target}:
            yield Paste(source, target)


def _take(fence: re.Match[str], lead: Mapping[str, str], steps: list[Step]) -> None:
    """Add the step of a block, or what is shown to the step before."""
    language, text = fence.groups()
    match lead, language, steps[-1:]:
        case {"file": path}, "python" | "yaml" | "json", _:
            steps.append(Write(path, text))
        case {"entered": terminals, "manner": manner}, "sh", _:
            commands = tuple(text.replace("\\\n", "").splitlines())
            steps.append(Enter(_names(terminals), commands, _MANNERS.get(manner, "ends")))
        case {"showing": terminal}, "text", _:
            steps.append(Shows(terminal, text))
        case _, "text", [Enter(shown="") | Interrupt(shown="") as before]:
            steps[-1] = replace(before, shown=text)
        case _:
            raise TutorialError(f"nobody can tell what this {language} block is for: {text}")


@dataclass
class Walk:
    """What was done so far."""

    blocks: int = 0
    commands: int = 0


class Terminal:
    """A shell in a terminal of its own, as a person has it: Ctrl-C reaches what runs in it, and colors are left out.

    A context manager; what is still running at its end is ended. What does not come within a minute, and a command that
    fails, raise `TutorialError` with what the terminal showed.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = {**environment, "PS1": _PROMPT, "PS2": "", "TERM": "dumb"}
        self._changed = threading.Condition()
        self._bytes = b""
        self._seen = 0

    @property
    def screen(self) -> str:
        """Everything that it has ever shown."""
        return _COLOR.sub("", self._bytes.decode(errors="replace")).replace("\r", "")

    def __enter__(self) -> Self:
        self._ours, theirs = os.openpty()
        try:
            modes = termios.tcgetattr(theirs)
            modes[3] &= ~termios.ECHO
            termios.tcsetattr(theirs, termios.TCSANOW, modes)
            self._shell = subprocess.Popen(
                [sys.executable, "-c", _IN_A_TERMINAL, *_SHELL],
                cwd=self._folder,
                env=self._environment,
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        self._until_ended()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in (signal.SIGINT, signal.SIGKILL):  # the first lets an embedded AWS tidy up
            with suppress(OSError):
                os.killpg(os.tcgetpgrp(self._ours), number)
            with suppress(TutorialError):
                self._wait(lambda: bool(_ENDED.search(self._news())), seconds=5)
        self._shell.kill()
        self._shell.wait()
        self._reading.join(timeout=5)
        os.close(self._ours)

    def start(self, command: str) -> None:
        """Type a command."""
        self._seen = len(self.screen)
        os.write(self._ours, f"{command}\n".encode())

    def enter(self, command: str) -> str:
        """Type a command, wait until it has ended well and return what it showed."""
        self.start(command)
        return self._until_ended()

    def enter_until(self, commands: tuple[str, ...], pattern: str) -> None:
        """Type the commands, and again, until they end well and show this."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                told = "".join(map(self.enter, commands))
            except TutorialError as error:
                told = str(error)
            if re.fullmatch(pattern, told.strip("\n")):
                return
            if time.monotonic() > deadline:
                raise TutorialError(f"it never showed that, but at last:\n{told}")
            time.sleep(0.2)

    def see(self, pattern: str) -> None:
        """Wait until the running command shows this, after what was seen before."""

        def find() -> re.Match[str] | None:
            lines = self._news().rpartition("\n")[0]
            return re.search(pattern, lines, re.MULTILINE)

        self._wait(lambda: bool(find() or _ENDED.search(self._news())))
        found = find()
        if found is None:
            raise TutorialError(f"it ended and showed instead:\n{self._news()}")
        self._seen += found.end()

    def interrupt(self) -> str:
        """Press Ctrl-C, wait until the command has ended well and return what it has shown since something was seen."""
        if _ENDED.search(self._news()):
            raise TutorialError(f"nothing runs there any more:\n{self._news()}")
        os.write(self._ours, b"\x03")
        return self._until_ended()

    def _until_ended(self) -> str:
        self._wait(lambda: bool(_ENDED.search(self._news())))
        told, status, _ = _ENDED.split(self._news())
        if status != "0":
            raise TutorialError(f"it ended with {status}:\n{told}")
        return told

    def _news(self) -> str:
        return self.screen[self._seen :]

    def _wait(self, is_there: Callable[[], bool], *, seconds: float = PATIENCE_SECONDS) -> None:
        with self._changed:
            if not self._changed.wait_for(is_there, timeout=seconds):
                raise TutorialError(f"that never came, but:\n{self._news()}")

    def _read(self) -> None:
        with suppress(OSError):  # the shell is gone
            while chunk := os.read(self._ours, 65_536):
                with self._changed:
                    self._bytes += chunk
                    self._changed.notify_all()


def follow(steps: list[Step], terminals: Mapping[str, Terminal], write: Callable[[str, str], None]) -> Walk:
    """Do what the page says, in its order, and compare; `write` takes a file's path and text.

    Raises `TutorialError` with the step and the terminal's last lines at the first thing that is not as the page says.
    """
    walk = Walk()
    for step in steps:
        try:
            _do(step, terminals, write, walk)
        except TutorialError as error:
            raise TutorialError(f"{step}\n{error}") from error
    return walk


def _do(step: Step, terminals: Mapping[str, Terminal], write: Callable[[str, str], None], walk: Walk) -> None:
    match step:
        case Write(path, text):
            write(path, text)
            walk.blocks += 1
        case Enter():
            for name in step.terminals:
                _enter(step, terminals[name])
            walk.blocks += 1 + bool(step.shown)
            walk.commands += len(step.commands)
        case Shows(name, shown):
            terminals[name].see(_pattern(shown))
            walk.blocks += 1
        case Interrupt(name, shown):
            told = terminals[name].interrupt()
            if not re.search(_pattern(shown), told, re.MULTILINE):
                raise TutorialError(f"it showed instead:\n{told}")
            walk.blocks += bool(shown)
        case Paste(source, target):
            lines = re.findall(r"export .*", terminals[source].screen)
            if not lines:
                raise TutorialError(f"there is no such line:\n{terminals[source].screen}")
            terminals[target].enter(lines[-1])


def _enter(step: Enter, terminal: Terminal) -> None:
    *ending, last = step.commands
    match step.manner:
        case "ends":
            _compare("".join([*map(terminal.enter, ending), terminal.enter(last)]), step.shown)
        case "runs":
            _compare("".join(map(terminal.enter, ending)), "")
            terminal.start(last)
            terminal.see(_pattern(step.shown))
        case "repeats":
            terminal.enter_until(step.commands, _pattern(step.shown))


def _compare(told: str, shown: str) -> None:
    if not re.fullmatch(_pattern(shown), told.strip("\n")):
        raise TutorialError(f"it showed instead:\n{told}")


def _pattern(shown: str) -> str:
    """Return the regular expression of what is shown: `...` alone on a line is any lines, elsewhere any text."""
    pattern = ""
    for line in shown.splitlines():
        pattern += r"(?:.*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n"
    return "^" + pattern.removesuffix(r"\n") + "$"
