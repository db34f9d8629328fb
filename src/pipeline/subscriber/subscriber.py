"""A subscriber: reads topics of events in its own consumer group, and passes each event to a handler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Final, Literal, TypeVar, overload

from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from pipeline.contracts import TopicSpec
from pipeline.errors import FatalError
from pipeline.kafka import BrokerUnavailable, DeadLetters, GroupClientFactory, KafkaSettings, KeyedConsumer
from pipeline.observability import SubscriberMetrics, get_logger
from pipeline.signals import stop_on_signals
from pipeline.subscriber.cluster import Cluster, KafkaCluster
from pipeline.subscriber.event import Event
from pipeline.subscriber.gate import RepeatGates
from pipeline.subscriber.handler_call import HandlerCall
from pipeline.subscriber.handlers import Function, Handlers
from pipeline.subscriber.settings import SubscriberSettings
from pipeline.subscriber.stream import EventStream
from pipeline.subscriber.topics import checked_group, dead_letter_topic, dead_letter_topics, topic_of

log = get_logger(__name__)

Model = TypeVar("Model", bound=BaseModel)
TypedFunction = Callable[[Event[Model]], Awaitable[None]]

_ONE_AT_A_TIME: Final = {"concurrency": 1, "slots": 1}
_LOOK_AGAIN: Final = 1.0


class Subscriber:
    """Passes events to handlers, or to ``async for``. Each event comes at least once; the sender's repeats are skipped.

    It commits an offset when that event and all before it are finished: handled, dead-lettered, skipped as a repeat, or
    of a type without a handler. It handles events with the same key one after another. If a handler fails, it retries
    the event while other keys go on, and dead-letters it after the last try. After a crash or a lost partition, at most
    ``max_span`` offsets after the committed one are handled again. A subscriber runs only once.

    Args:
        bootstrap_servers: Brokers to connect to first. Pass ``kafka`` instead for TLS, SASL or a topic prefix.
        group: The consumer group. Members of one group share the partitions; each group gets every event.
        topics: Categories (``managed-cards``) or names of topics.
        kafka: Connection to the cluster. Its ``group_prefix`` is ignored: ``group`` is the full name.
        settings: Limits and times; all have defaults.
        cluster: Replaces Kafka in tests, with ``connect``.
        connect: Makes a member of the group.

    Raises:
        ValueError: A category is unknown, or the group name is invalid.
        TypeError: You gave neither or both of ``bootstrap_servers`` and ``kafka``.
    """

    def __init__(
        self,
        bootstrap_servers: str | None = None,
        *,
        group: str,
        topics: Sequence[str],
        kafka: KafkaSettings | None = None,
        settings: SubscriberSettings | None = None,
        cluster: Cluster | None = None,
        connect: GroupClientFactory | None = None,
    ) -> None:
        if (bootstrap_servers is None) == (kafka is None):
            raise TypeError("name the brokers, or give kafka=KafkaSettings(...): one of the two")
        if isinstance(topics, str) or not topics:
            raise ValueError("topics is a list of at least one category or topic")
        named = kafka or KafkaSettings(bootstrap_servers=bootstrap_servers or "")
        self._kafka = named.model_copy(update={"group_prefix": ""})
        self._group = checked_group(group)
        self._topics = list(dict.fromkeys(map(topic_of, topics)))
        self._settings = settings or SubscriberSettings()
        self._handlers = Handlers()
        self._metrics = SubscriberMetrics()
        self._cluster: Cluster = cluster or KafkaCluster(
            self._kafka, self._settings, group=self._group, metrics=self._metrics
        )
        self._connect = connect
        self._consumer: KeyedConsumer | None = None
        self._stream: EventStream | None = None
        self._stopping = asyncio.Event()
        self._started = False

    # declaring

    @overload
    def on(self, what: type[Model]) -> Callable[[TypedFunction[Model]], TypedFunction[Model]]: ...

    @overload
    def on(self, what: str, *, model: type[Model]) -> Callable[[TypedFunction[Model]], TypedFunction[Model]]: ...

    @overload
    def on(self, what: type[BaseModel] | str, *, raw: Literal[True]) -> Callable[[Function], Function]: ...

    @overload
    def on(self, what: str) -> Callable[[Function], Function]: ...

    def on(
        self, what: type[BaseModel] | str, *, model: type[BaseModel] | None = None, raw: bool = False
    ) -> Callable[[Any], Any]:
        """Return a decorator that makes an ``async def`` function the handler of an event type.

        Args:
            what: The model of the event's body, for all types with that model; or a type (``ce_type``).
            model: The model of the body, for a type without a published model.
            raw: Whether ``event.data`` is plain JSON. The subscriber then builds no model, and so refuses no body that
                does not fit a model.
        """

        def declare(handler: Function) -> Function:
            self._handlers.add(what, handler, model, raw=raw)
            return handler

        return declare

    @overload
    def on_any(self, handler: Function) -> Function: ...

    @overload
    def on_any(self, *, raw: bool) -> Callable[[Function], Function]: ...

    def on_any(self, handler: Function | None = None, *, raw: bool = False) -> Any:
        """Make an ``async def`` function the handler of all types without their own handler.

        Use it as a decorator: ``@subscriber.on_any``, or ``@subscriber.on_any(raw=True)`` for plain JSON as in
        :meth:`on`.
        """

        def declare(handler: Function) -> Function:
            self._handlers.add_rest(handler, raw=raw)
            return handler

        return declare if handler is None else declare(handler)

    def topics_needed(self) -> list[TopicSpec]:
        """Return the dead-letter topics that must exist before it runs: ``pipeline topics create --group NAME``."""
        return dead_letter_topics(self._group, self._topics)

    # running

    async def run(self) -> None:
        """Pass events to the handlers until :meth:`stop`, SIGTERM or SIGINT; return after the last commit.

        It waits for brokers that are unavailable.

        Raises:
            RuntimeError: There is no handler, or the subscriber ran before.
            FatalError: It cannot continue: a topic or a right is missing, records were lost, or every event fails.
        """
        if not self._handlers:
            raise RuntimeError("there is no handler: declare one with `on` or `on_any`, or use `async for`")
        await self._run(self._handler_call(), self._settings)

    def _handler_call(self) -> HandlerCall:
        settings = self._settings
        return HandlerCall(
            self._handlers, max_tries=settings.retry.max_tries, max_dead_letters=settings.max_dead_letters
        )

    async def __aiter__(self) -> AsyncGenerator[Event[Any], None]:
        """Yield events of all types, one by one. When the loop asks for the next event, the one before is finished.

        An exception in the loop's body, ``break`` and ``return`` leave the event unfinished: it comes again at the next
        start. To end in an orderly way, call :meth:`stop` and let the loop run out.

        Raises:
            RuntimeError: There are handlers, or the subscriber ran before.
            FatalError: As :meth:`run`.
        """
        if self._handlers:
            raise RuntimeError("there are handlers: use `run`, or `async for` without handlers")
        stream = self._stream = EventStream()
        self._handlers.add_rest(stream.put)
        settings = self._settings.model_copy(update=_ONE_AT_A_TIME)
        runner = asyncio.create_task(self._run(self._handler_call(), settings), name=f"subscriber-{self._group}")
        runner.add_done_callback(lambda _: stream.close())
        try:
            while (event := await stream.next()) is not None:
                yield event
            await runner
        finally:
            stream.abandon()
            self.stop()
            await asyncio.wait([runner])
            if not runner.cancelled():
                runner.exception()  # mark it as retrieved, so that it does not hide an exception of the loop's body

    def stop(self) -> None:
        """Start no more events, wait ``stop_grace_seconds`` for handlers, cancel the rest, commit, leave the group."""
        self._stopping.set()
        if self._stream is not None:
            self._stream.close()
        if self._consumer is not None:
            self._consumer.stop()

    @property
    def ready(self) -> bool:
        """Whether it has joined its group and has a fresh heartbeat. Use it for a readiness probe."""
        return self._consumer is not None and self._consumer.ready

    @property
    def condition(self) -> str:
        """Its state, as text for a person. Use it as the text of a readiness probe."""
        return "not in its group yet" if self._consumer is None else self._consumer.condition

    @property
    def alive(self) -> bool:
        """Whether the event loop made progress within the last minute. Use it for a liveness probe."""
        return self._consumer is None or self._consumer.alive

    @property
    def registry(self) -> CollectorRegistry:
        """Its metrics. Serve them with ``prometheus_client.start_http_server(9464, registry=subscriber.registry)``."""
        return self._metrics.registry

    async def _run(self, call: HandlerCall, settings: SubscriberSettings) -> None:
        if self._started:
            raise RuntimeError("a subscriber runs once: make another")
        self._started = True
        if settings.signals:
            with stop_on_signals(self.stop):
                await self._consume(call, settings)
        else:
            await self._consume(call, settings)

    async def _consume(self, call: HandlerCall, settings: SubscriberSettings) -> None:
        await self._ensure_topics()
        if self._stopping.is_set():
            return
        async with self._cluster.publisher() as publisher:
            self._consumer = KeyedConsumer(
                lambda record, _lease: call(record),
                gate=RepeatGates(
                    self._handlers,
                    self._cluster.read_back,
                    seconds=settings.repeat_seconds,
                    records=settings.repeat_records,
                    group=self._group,
                    metrics=self._metrics,
                ),
                dead_letters=DeadLetters(
                    publisher,
                    group=self._group,
                    metrics=self._metrics,
                    address=lambda topic: dead_letter_topic(self._group, topic),
                ),
                group=self._group,
                topics=self._topics,
                kafka=self._kafka,
                settings=settings.for_consumer(),
                fetch_ahead=2 * settings.max_span,
                metrics=self._metrics,
                connect=self._connect,
            )
            await self._consumer.run()

    async def _ensure_topics(self) -> None:
        needed = [*self._topics, *(spec.topic for spec in self.topics_needed())]
        while not self._stopping.is_set():
            try:
                missing = await self._cluster.missing(needed)
            except BrokerUnavailable as error:
                log.warning("connection_failed", component=self._group, code=error.code, message=error.message)
            else:
                if missing:
                    raise FatalError(
                        "subscriber_topics_missing",
                        f"Not there, or not to be described with these rights: {', '.join(missing)}. "
                        f"`pipeline topics create --group {self._group}` makes what is missing.",
                    )
                return
            try:
                async with asyncio.timeout(_LOOK_AGAIN):
                    await self._stopping.wait()
            except TimeoutError:
                continue
