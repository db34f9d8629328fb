"""Finds and constructs the processor that the settings name."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from types import TracebackType
from typing import Any, Final, Self

import structlog
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.errors import FatalError, PipelineError, TransientError
from pipeline.jobs.processors.protocols import (
    Card,
    CardResult,
    ColumnarProcessor,
    GroupProcessor,
    JobContext,
    Opens,
    Processor,
    RowProcessor,
)
from pipeline.jobs.processors.settings import ProcessorSettings
from pipeline.outbound import NetworkSettings
from pipeline.plugins import Fault, PluginFailed, contained, contained_call, import_plugin

log = structlog.get_logger(__name__)

ENTRY_POINT_GROUP: Final = "card_pipeline.processors"

_NETWORK: Final = NetworkSettings()


class OptionsRefused(FatalError):
    """The options of a processor do not match its ``Options`` model.

    Attributes:
        model: The model.
        error: The model's error. It contains values, so do not show it.
    """

    def __init__(self, name: str, model: type[BaseModel], error: ValidationError) -> None:
        faults = "; ".join(
            f"{_path(fault['loc'])}: {_said(fault, model)}" for fault in error.errors(include_input=False)
        )
        super().__init__("processor_options", f"Options of processor {name}: {faults}.")
        self.model = model
        self.error = error


PlainFunction = Callable[[Card, JobContext], Awaitable[CardResult | None]]
"""The shortest processor: ``async def name(card, context)``; None means ok."""


class LoadedProcessor:
    """A checked processor with its settings. Open it before the first card, and close it after the last.

    Unexpected errors of the processor's own ``open`` and ``close`` are contained.

    Attributes:
        processor: The processor itself.
        settings: Its name, options, concurrency and tries.
        result_columns: Names of its own result columns.
        input_columns: Names of the columns that a columnar processor reads; None means all.
        cards_per_call: Most cards of one call; 1 for all processors but a GroupProcessor.
        version: The processor's version. A new version never continues the parts of an old one.
    """

    def __init__(self, processor: Processor, settings: ProcessorSettings) -> None:
        self.processor: Final = processor
        self.settings: Final = settings
        self.result_columns: Final = _names(processor, "result_columns", settings.name) or ()
        self.input_columns: Final = _names(processor, "input_columns", settings.name)
        self.cards_per_call: Final = processor.cards_per_call if isinstance(processor, GroupProcessor) else 1
        self.version: Final = str(getattr(processor, "version", "1"))
        self._opened = False
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Open the processor's connections, if it has any that are not open yet.

        Raises:
            TransientError: It cannot be opened now (``processor_unavailable``); call again later.
            FatalError: The processor raised it, because its settings cannot be used.
        """
        async with self._opening:
            if not self._opened and isinstance(self.processor, Opens):
                await contained(self.processor.open, self._unavailable, PipelineError)
            self._opened = True

    async def open_or_wait(self) -> None:
        """Open it at the start of a process. If that fails, its first job tries again."""
        try:
            await self.open()
        except TransientError as error:
            log.warning("processor_not_opened", code=error.code, message=error.message)

    async def close(self) -> None:
        """Close the processor's connections. It never fails, so that others are closed too."""
        if not self._opened or not isinstance(self.processor, Opens):
            return
        self._opened = False
        try:
            await contained(self.processor.close, PluginFailed)
        except PluginFailed as failed:
            fault = failed.fault
            log.error(  # noqa: TRY400 - its text may contain data of the processor
                "processor_not_closed", processor=self.settings.name, error=fault.kind, frames=fault.lines
            )

    def _unavailable(self, fault: Fault) -> TransientError:
        log.error("processor_open_failed", processor=self.settings.name, error=fault.kind, frames=fault.lines)
        return TransientError(
            "processor_unavailable",
            f"Processor {self.settings.name} cannot be opened: its open raised {fault}. The pipeline tries again.",
        )

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Function:
    """A row-wise processor that calls a plain function."""

    def __init__(self, function: PlainFunction, attributes: object) -> None:
        self._function = function
        self.result_columns = getattr(attributes, "result_columns", ())
        self.version = getattr(attributes, "version", "1")

    async def process(self, card: Card, context: JobContext) -> CardResult:
        result = await self._function(card, context)
        return CardResult() if result is None else result


def load(settings: ProcessorSettings, network: NetworkSettings = _NETWORK) -> LoadedProcessor:
    """Find the processor of that name and construct it with its options.

    Args:
        settings: Its name and options.
        network: Proxy and CA bundle, for a class whose constructor has a parameter ``network``.

    Raises:
        FatalError: There is no such processor (the message lists the installed ones), it is not a processor, or its
            options are wrong (the message names the option).
    """
    return adopt(_find(settings.name), settings, network)


def adopt(target: object, settings: ProcessorSettings, network: NetworkSettings = _NETWORK) -> LoadedProcessor:
    """Make a processor from a class, a plain async function or an instance. It raises the errors of :func:`load`."""

    def failed(fault: Fault) -> FatalError:
        return FatalError("processor_invalid", f"Processor {settings.name} cannot be constructed: it raised {fault}.")

    return contained_call(lambda: _adopted(target, settings, network), failed, FatalError, KeyboardInterrupt)


def _adopted(target: object, settings: ProcessorSettings, network: NetworkSettings) -> LoadedProcessor:
    if inspect.isclass(target):
        processor: object = _construct(target, settings, network)
    elif inspect.iscoroutinefunction(target):
        function = partial(target, **settings.options)
        _check_options(target, settings, {}, ours=2)
        processor = _Function(function, target)
    elif settings.options:
        raise FatalError("processor_options", f"Processor {settings.name} takes no options: it is an instance.")
    else:
        processor = target
    return LoadedProcessor(_checked(processor, settings.name), settings)


def options_of(settings: ProcessorSettings) -> BaseModel | None:
    """Return the validated options of a processor; None if it is not installed or has no ``Options`` model."""
    try:
        model = _model(_find(settings.name))
        return model(**settings.options) if model is not None else None
    except (FatalError, ValidationError):
        return None


def installed() -> tuple[str, ...]:
    """Return the names of all installed processors."""
    return tuple(sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)}))


def _find(name: str) -> object:
    module, _, attribute = name.partition(":")
    if attribute:
        dotted = f"{module}.{attribute}".split(".")
        if module.endswith(".py") or not all(part.isidentifier() for part in dotted):
            raise FatalError(
                "processor_unknown",
                f"Processor {name!r} is not written as module:name, for example acme.loader:Loader"
                " for the class Loader in acme/loader.py.",
            )
        return import_plugin(EntryPoint(name, name, ENTRY_POINT_GROUP), partial(_refused, name))
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        return import_plugin(point, partial(_refused, point.value))
    raise FatalError(
        "processor_unknown",
        f"There is no processor {name!r}. Installed: {', '.join(installed()) or 'none'}. Your own: write module:name.",
    )


def _refused(name: str, why: str) -> FatalError:
    return FatalError("processor_unknown", f"Processor {name} cannot be imported: {why}.")


def _construct(target: type, settings: ProcessorSettings, network: NetworkSettings) -> object:
    given: dict[str, Any] = {"network": network} if "network" in inspect.signature(target).parameters else {}
    model = _model(target)
    if model is not None:
        try:
            options = model(**settings.options)
        except ValidationError as error:
            raise OptionsRefused(settings.name, model, error) from error
        return target(options, **given)
    _check_options(target, settings, given, ours=0)
    try:
        return target(**settings.options, **given)
    except (TypeError, ValueError) as error:
        raise FatalError("processor_options", f"Options of processor {settings.name}: {error}.") from error


def _model(target: object) -> type[BaseModel] | None:
    model = getattr(target, "Options", None) if inspect.isclass(target) else None
    return model if inspect.isclass(model) and issubclass(model, BaseModel) else None


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "options"


def _said(fault: ErrorDetails, model: type[BaseModel]) -> str:
    """Return the error of an option. If there is no such option, list the existing ones."""
    if fault["type"] == "extra_forbidden":
        known = f"; there are {', '.join(sorted(model.model_fields)) or 'none'}" if len(fault["loc"]) == 1 else ""
        return f"is not an option{known}"
    return fault["msg"].removeprefix("Value error, ")


def _check_options(
    target: Callable[..., object], settings: ProcessorSettings, given: Mapping[str, Any], *, ours: int
) -> None:
    """Check that a function or class takes these options as keywords, after the engine's own arguments."""
    signature = inspect.signature(target)
    try:
        signature.bind(*[None] * ours, **settings.options, **given)
    except TypeError as error:
        names = [name for name in list(signature.parameters)[ours:] if name not in given]
        raise FatalError(
            "processor_options",
            f"Options of processor {settings.name}: {error}; there are {', '.join(names) or 'none'}.",
        ) from error


def _checked(processor: object, name: str) -> Processor:
    ends = [getattr(processor, end, None) for end in ("open", "close")]
    if len({end is not None for end in ends} | {inspect.iscoroutinefunction(end) for end in ends}) > 1:
        raise FatalError(
            "processor_invalid", f"{name} needs `async def open(self)` and `async def close(self)`, or none."
        )
    several = inspect.iscoroutinefunction(getattr(processor, "process_cards", None))
    size = getattr(processor, "cards_per_call", None)
    if several and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise FatalError("processor_invalid", f"cards_per_call of {name} must be a whole number from 1.")
    row = (several and size != 1) or inspect.iscoroutinefunction(getattr(processor, "process", None))
    columnar = callable(getattr(processor, "process_batch", None))
    if row == columnar:
        what = "both a process and a process_batch method" if row else "neither"
        raise FatalError(
            "processor_invalid",
            f"{name} is not a processor: it needs `async def process(card, context)`"
            f" or `def process_batch(batch, context)`, and has {what}.",
        )
    if row and isinstance(processor, RowProcessor | GroupProcessor):
        return processor
    if isinstance(processor, ColumnarProcessor):
        return processor
    raise AssertionError(name)  # pragma: no cover - the two checks above leave nothing else


def _names(processor: Processor, attribute: str, name: str) -> tuple[str, ...] | None:
    columns = getattr(processor, attribute, None)
    if columns is None:
        return None
    fine = isinstance(columns, list | tuple) and all(isinstance(column, str) and column.strip() for column in columns)
    if not fine or len(set(columns)) != len(columns):
        raise FatalError("processor_invalid", f"{attribute} of {name} must be non-empty names without duplicates.")
    return tuple(columns)
