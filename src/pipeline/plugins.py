"""Calls foreign code (processors, partners, sources), and reports its exceptions without their texts.

The text of a foreign exception, and the values in its frames, may be card data. So these functions catch BaseException
(which includes panics of Rust extensions and ``SystemExit``), let cancellations pass, and turn every other exception
into a :class:`Fault`: its class and its lines of code.
"""

from __future__ import annotations

import asyncio
import importlib
import linecache
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import PurePath
from types import ModuleType
from typing import Any, Final, TypeVar

from pipeline.errors import FatalError

T = TypeVar("T")

_OURS: Final = __name__.partition(".")[0]
_NOT_FOREIGN: Final = {_OURS, "importlib"}
"""Packages whose frames precede the first line of foreign code: ours, and Python's import of it."""
_LONGEST_NAME: Final = 80
_MOST_FRAMES: Final = 30
_MOST_CAUSES: Final = 5

_in_plugin: ContextVar[bool] = ContextVar("in_plugin", default=False)


@dataclass(frozen=True, slots=True)
class Frame:
    """One entry of a traceback: a line of code, without values."""

    file: str
    line: int
    function: str
    package: str

    def __str__(self) -> str:
        """Return the file, its folder and the line: enough to find the code, and the same on each machine."""
        return f"{'/'.join(PurePath(self.file).parts[-2:])}:{self.line}"

    @property
    def source(self) -> str:
        """The line of code; empty if its file is missing."""
        return linecache.getline(self.file, self.line).strip()


@dataclass(frozen=True, slots=True)
class Fault:
    """An exception of foreign code, without its text.

    Attributes:
        kind: Class of the exception.
        frames: The calls that led to it, the outermost first.
        causes: The exceptions that caused it, the nearest first.
    """

    kind: str
    frames: tuple[Frame, ...]
    causes: tuple[Fault, ...] = field(default=())

    @property
    def where(self) -> str:
        """File and line of the last frame in the plug-in's own package; empty without such a frame (compiled code)."""
        frame = self._own_frame()
        return str(frame) if frame else ""

    def __str__(self) -> str:
        """Render as ``KeyError at acme/loader.py:31``."""
        return f"{self.kind} at {self.where}" if self.frames else self.kind

    def _own_frame(self) -> Frame | None:
        if not self.frames:
            return None
        package = self.frames[0].package
        return next(frame for frame in reversed(self.frames) if frame.package == package)

    def traceback(self) -> Iterator[str]:
        """Yield the lines of a traceback like Python's, without texts and values; causes come last."""
        yield "Traceback (most recent call last), without values:"
        for frame in self.frames:
            yield f'  File "{frame.file}", line {frame.line}, in {frame.function}'
            if frame.source:
                yield f"    {frame.source}"
        yield self.kind
        for cause in self.causes:
            yield "from"
            yield from cause.traceback()

    @property
    def lines(self) -> list[str]:
        """The frames and the causes, for a log line."""
        found = [f"{one}, in {one.function}" for one in self.frames]
        return found + [f"from {cause}" for cause in self.causes]


def fault_of(error: BaseException) -> Fault:
    """Return the fault of an exception of foreign code; of an exception group, that of its first exception."""
    first, found = _unwrapped(error)
    causes: list[Fault] = []
    seen = {id(first)}
    last = first
    while (cause := _cause_of(last)) is not None and id(cause) not in seen and len(causes) < _MOST_CAUSES:
        last, frames = _unwrapped(cause)
        seen |= {id(cause), id(last)}
        causes.append(Fault(_name_of(last), frames))
    return Fault(_name_of(first), found, tuple(causes))


def is_cancellation(error: BaseException) -> bool:
    """Return whether an error is a cancellation from outside, which must be raised again.

    A CancelledError that foreign code raises itself, or gets from something it awaits, is not such a cancellation.
    """
    if not isinstance(error, asyncio.CancelledError | GeneratorExit):
        return False
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return isinstance(error, GeneratorExit)
    if isinstance(error, GeneratorExit):
        return task is None  # somebody closes its coroutine outside a task
    return task is None or task.cancelling() > 0


class PluginFailed(Exception):
    """Foreign code raised an unexpected exception. For callers without an error class of their own."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class PluginExit(Exception):
    """Foreign code tried to end the process inside a task that it started."""


def _new_task(loop: asyncio.AbstractEventLoop, work: Any, **how: Any) -> asyncio.Task[Any]:
    return asyncio.Task(_without_exit(work) if _in_plugin.get() else work, loop=loop, **how)


async def _without_exit(work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    except (SystemExit, KeyboardInterrupt) as error:
        raise PluginExit from error


def _unwrapped(error: BaseException) -> tuple[BaseException, tuple[Frame, ...]]:
    """Return the innermost error of nested groups, and the frames of all of them."""
    frames = _frames(error)
    while isinstance(error, BaseExceptionGroup) or (isinstance(error, PluginExit) and error.__cause__ is not None):
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__ or error
        frames += _frames(error)
    return error, frames


def _cause_of(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _name_of(error: BaseException) -> str:
    name = type(error).__name__
    return name if name.isidentifier() and len(name) <= _LONGEST_NAME else "an exception"


def _frames(error: BaseException) -> tuple[Frame, ...]:
    """Return the frames of foreign code, without our frames before them; of many, only the first and the last."""
    frames: list[Frame] = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        package = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        frames.append(Frame(code.co_filename, trace.tb_lineno, code.co_name, package))
        trace = trace.tb_next
    foreign = [number for number, frame in enumerate(frames) if frame.package not in _NOT_FOREIGN]
    if isinstance(error, SyntaxError) and error.lineno and str(error.filename).endswith(".py"):
        package = frames[foreign[0]].package if foreign else ""
        foreign.append(len(frames))
        frames.append(Frame(str(error.filename), error.lineno, "<module>", package))
    begin = foreign[0] if foreign else 0
    frames[:begin] = []
    if len(frames) > _MOST_FRAMES:
        frames[_MOST_FRAMES // 2 : -(_MOST_FRAMES // 2)] = []
    return tuple(frames)


def contain_tasks() -> None:
    """From now on, contain the tasks that foreign code starts in the current task; see :func:`contained`."""
    loop = asyncio.get_running_loop()
    if loop.get_task_factory() is None:
        loop.set_task_factory(_new_task)
    _in_plugin.set(True)


async def contained(
    call: Callable[[], Awaitable[T]], failed: Callable[[Fault], Exception], *expected: type[BaseException]
) -> T:
    """Await a call of foreign code and return its result.

    The tasks that the call starts are contained too: ``SystemExit`` or ``KeyboardInterrupt`` in a task ends the loop,
    so both become :class:`PluginExit` there.

    Args:
        call: Makes the call.
        failed: Makes the error to raise instead of an unexpected exception.
        expected: Classes of exceptions to let pass.
    """
    before = _in_plugin.get()
    contain_tasks()
    try:
        return await call()
    except expected:
        raise
    except BaseException as error:
        if is_cancellation(error):
            raise
        fault = fault_of(error)
    finally:
        _in_plugin.set(before)
    # outside the except block, so that the foreign error and the values in its frames are not chained
    raise failed(fault)


def contained_call(call: Callable[[], T], failed: Callable[[Fault], Exception], *expected: type[BaseException]) -> T:
    """Call foreign code and return its result; see :func:`contained`."""
    try:
        return call()
    except expected:
        raise
    except BaseException as error:  # noqa: BLE001 - foreign code may raise anything
        fault = fault_of(error)
    raise failed(fault)


def import_plugin(point: EntryPoint, refused: Callable[[str], FatalError]) -> object:
    """Import the object that an entry point, or a name of the form ``module:name``, names.

    Args:
        point: Names module and object.
        refused: Makes the error from the reason: the missing module and how to install it, the names that the module
            does define, or the line that failed.

    Raises:
        FatalError: It cannot be imported.
    """

    def imported() -> object:
        try:
            module = importlib.import_module(point.module)
        except ImportError as error:
            raise refused(_not_imported(point, error)) from error
        try:
            return point.load()
        except AttributeError as error:
            raise refused(f"{error}. The module defines: {_defined(module)}") from error

    return contained_call(imported, lambda fault: refused(f"it raised {fault}"), FatalError, KeyboardInterrupt)


def _not_imported(point: EntryPoint, error: ImportError) -> str:
    """Return why an import failed, and where or what to do."""
    if isinstance(error, ModuleNotFoundError) and f"{point.module}.".startswith(f"{error.name}."):
        return (
            f"there is no module {error.name!r} where this pipeline looks for modules."
            " Install its package beside the pipeline (pip install),"
            " or set PYTHONPATH to the folder that holds the module"
        )
    where = fault_of(error).where
    return f"{error}, at {where}" if where else str(error)


def _defined(module: ModuleType) -> str:
    """Return the names of the classes and functions that a module defines."""
    names = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    return ", ".join(sorted(name for name in names if not name.startswith("_"))) or "no class and no function"
