"""What a handler function says about itself: its name and place, how it is called, and the type of its events."""

import contextlib
import functools
import inspect
import os
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Final

from pydantic import PydanticUserError

from worker.errors import ConfigError, LongshoreError
from worker.message import Message
from worker.outcome import Ack, DeadLetter, Outcome, Retry
from worker.router.payload import Payload
from worker.router.threads import HANDLER_THREADS

__all__ = ["ContractError", "Handler", "HandlerFunction", "checked_outcome", "shown_path"]

_Outcomes = Mapping[str, Outcome] | None
HandlerFunction = (
    Callable[[Message[Any]], Awaitable[Outcome | None] | Outcome | None]
    | Callable[[Sequence[Message[Any]]], Awaitable[_Outcomes] | _Outcomes]
    | Callable[[list[Message[Any]]], Awaitable[_Outcomes] | _Outcomes]
)
"""What `Router.on` decorates: an async function of a message or, with `batch`, of several; a sync one runs in a thread."""

_ALLOWED: Final = (
    "allowed is a function of one parameter such as `async def handle(message: Message[OrderCreated]) -> None`"
)
_ALLOWED_BATCH: Final = (
    "allowed with `batch` is a function such as `async def handle(messages: Sequence[Message[PageViewed]]) -> None`"
)
_SEQUENCES: Final = (Sequence, list)
_ONLY_MESSAGE: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class ContractError(LongshoreError):
    """A handler or middleware returned something that is no outcome: a mistake in its code, never success."""


class Handler:
    """One handler function, read once.

    Raises `ConfigError` for a function that cannot be a handler. A name in its annotation that is not defined yet is
    looked up again when `payload` is first asked for.
    """

    __slots__ = ("_allowed", "_is_batch", "_local_names", "_payload", "function", "is_async", "label", "name")

    def __init__(self, function: HandlerFunction, local_names: Mapping[str, Any], *, is_batch: bool = False) -> None:
        self.function: Any = function
        self._is_batch = is_batch
        self._allowed = _ALLOWED_BATCH if is_batch else _ALLOWED
        inner = _innermost(function)
        self.name = f"{inner.__module__}.{inner.__qualname__}" if hasattr(inner, "__qualname__") else repr(inner)
        self.label = f"handler `{self.name}` ({_place(inner)})"
        self.is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(_call_of(function))
        self._local_names = local_names
        self._payload: Payload | None = None
        self._refuse_what_cannot_be_called()
        with contextlib.suppress(NameError, AttributeError):  # defined further down; `payload` looks again
            self._payload = self._read_annotation()
            self._local_names = {}

    @property
    def payload(self) -> Payload:
        """What reads the handler's events; raises `ConfigError` when its annotation names what does not exist."""
        if self._payload is None:
            try:
                self._payload = self._read_annotation()
            except (NameError, AttributeError) as error:
                raise ConfigError(
                    f"{self.label} has an annotation that cannot be resolved ({error}); define or import that name in the "
                    f"handler's module, outside `if TYPE_CHECKING:`"
                ) from None
            self._local_names = {}
        return self._payload

    async def __call__(self, message: Message[Any], /) -> Outcome:
        """Run the function, in a thread if it is sync; `None` is `Ack()`. Raises `ContractError` for a non-outcome."""
        result = await (self.function(message) if self.is_async else self._in_thread(message))
        return _DONE if result is None else checked_outcome(result, self.label, "None, Ack, Retry or DeadLetter")

    async def call_batch(self, messages: list[Message[Any]]) -> list[Outcome | ContractError]:
        """Run the function for several messages and return what became of each, by position; who is not named is done.

        Raises what the function raises, and `ContractError` when it returned no mapping, or named a stranger.
        """
        named = await (self.function(messages) if self.is_async else self._in_thread(messages))
        if named is None:
            return [_DONE] * len(messages)
        if not isinstance(named, Mapping):
            raise ContractError(
                f"{self.label} returned a {type(named).__name__}; allowed is None or a mapping of message ids to outcomes"
            )
        if strangers := named.keys() - {message.id for message in messages}:
            raise ContractError(
                f"{self.label} returned outcomes for {len(strangers)} ids that are not in its batch; "
                f"allowed are the `id`s of its messages"
            )
        return [self._outcome_of(named.get(message.id)) for message in messages]

    def _outcome_of(self, outcome: object) -> Outcome | ContractError:
        if outcome is None:
            return _DONE
        try:
            return checked_outcome(outcome, self.label, "Ack, Retry or DeadLetter for each message")
        except ContractError as error:
            return error

    async def _in_thread(self, argument: object) -> Any:
        result = await HANDLER_THREADS.run(self.function, argument)
        return await result if inspect.isawaitable(result) else result  # a plain function around an async one

    def _refuse_what_cannot_be_called(self) -> None:
        function = self.function
        if isinstance(function, (staticmethod, classmethod)):
            raise ConfigError(f"{self.label} is a {type(function).__name__} object; put that decorator above `on`")
        if inspect.isclass(function) or not callable(function):
            raise ConfigError(f"{self.label} is a {type(function).__name__}; {self._allowed}")
        for called in (function, _call_of(function)):
            if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
                raise ConfigError(f"{self.label} is a generator function, which would never run; {self._allowed}")

    def _read_annotation(self) -> Payload:
        """Build the payload reader; raises `NameError` or `AttributeError` while a name is not defined."""
        parameter = self._message_parameter()
        annotation = parameter.annotation
        shown = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        if annotation is inspect.Parameter.empty:
            raise ConfigError(f"{self.label} does not annotate `{parameter.name}`; {self._allowed}")
        try:
            hint = _resolved(annotation, _innermost(self.function), self._local_names)
        except (SyntaxError, TypeError) as error:
            raise ConfigError(
                f"{self.label} has the annotation `{shown}`, which is wrong ({error}); {self._allowed}"
            ) from None
        hint = _without_notes(hint)
        is_sequence = typing.get_origin(hint) in _SEQUENCES
        if is_sequence and not self._is_batch:
            raise ConfigError(
                f"{self.label} takes `{shown}`, which needs `batch=Batch(size=200)` in its decorator; without that, {self._allowed}"
            )
        if self._is_batch:
            hint = _without_notes(typing.get_args(hint)[0]) if is_sequence else None
        if hint is Message:
            return Payload(Any)
        if typing.get_origin(hint) is not Message:
            raise ConfigError(f"{self.label} annotates `{parameter.name}` as `{shown}`; {self._allowed}")
        try:
            return Payload(typing.get_args(hint)[0])
        except (PydanticUserError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(
                f"{self.label} asks for `{shown}`, but events of that type cannot be read ({reason}); use a pydantic "
                f"model, a dataclass, a TypedDict, dict, str or bytes"
            ) from None

    def _message_parameter(self) -> inspect.Parameter:
        try:
            parameters = inspect.signature(self.function).parameters.values()
        except ValueError:
            raise ConfigError(f"{self.label} does not tell its parameters; {self._allowed}") from None
        needed = [p for p in parameters if p.default is p.empty and p.kind not in _VARIADIC]
        first = next((p for p in parameters if p.kind in _ONLY_MESSAGE), None)
        if first is None:
            raise ConfigError(f"{self.label} has no parameter for the message; {self._allowed}")
        extra = [f"`{p.name}`" for p in needed if p is not first]
        if extra and first.name == "self":
            raise ConfigError(
                f"{self.label} is a method without its object; decorate the bound one: `on(...)(x.method)`"
            )
        if extra:
            raise ConfigError(f"{self.label} asks for more than the message ({', '.join(extra)}); {self._allowed}")
        return first


_DONE: Final = Ack()


def checked_outcome(result: object, label: str, allowed: str) -> Outcome:
    """Return the result if it is an outcome, else raise `ContractError`, which names the returner and the type."""
    if isinstance(result, (Ack, Retry, DeadLetter)):
        return result
    found = f"the class {result.__name__}" if isinstance(result, type) else f"a value of type {type(result).__name__}"
    raise ContractError(f"{label} returned {found}; allowed is {allowed}")


def shown_path(path: str) -> str:
    """Return a path the way a person at the prompt would write it."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return os.fspath(path)


def _without_notes(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def _resolved(annotation: Any, function: Any, local_names: Mapping[str, Any]) -> Any:
    """Evaluate one annotation alone: the others may name what exists for type checkers only."""
    holder = SimpleNamespace(__annotations__={"message": annotation})
    module_names = getattr(function, "__globals__", {})
    return typing.get_type_hints(holder, module_names, dict(local_names), include_extras=True)["message"]


def _call_of(function: Any) -> Any:
    """Return the `__call__` of a callable object; a function is returned as it is."""
    return function if inspect.isroutine(function) or inspect.isclass(function) else getattr(function, "__call__", None)  # noqa: B004 - the method is wanted


def _innermost(function: Any) -> Any:
    """Return the function whose code was written for the handler, under partials, methods, objects and wrappers."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif inspect.ismethod(function):
            function = function.__func__
        elif inspect.isroutine(function) or inspect.isclass(function) or not callable(function):
            return function
        else:
            function = type(function).__call__


def _place(function: Any) -> str:
    code = getattr(function, "__code__", None)
    return "no Python source" if code is None else f"{shown_path(code.co_filename)}:{code.co_firstlineno}"
