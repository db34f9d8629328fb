"""Putting one integration's callbacks together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from pydantic import SecretStr

from pipeline.jobs.ecs.caller import HttpCaller
from pipeline.jobs.ecs.file_token import FileTokenProvider
from pipeline.jobs.ecs.oauth_token import OAuthTokenProvider
from pipeline.jobs.ecs.protocols import Caller, TokenProvider
from pipeline.jobs.ecs.settings import CallbackSettings, OAuthSettings
from pipeline.jobs.ecs.token_watch import TokenWatch
from pipeline.observability import Metrics
from pipeline.outbound import HostRules, NetworkSettings
from pipeline.outbound.guard import open_session
from pipeline.outbound.hosts import split_url


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What the confirm component needs of one integration.

    Attributes:
        caller: Sends callbacks.
        watch: Run ``watch.run()`` beside the consumer, and register ``watch.check`` for readiness.
    """

    caller: Caller
    watch: TokenWatch


@asynccontextmanager
async def open_callbacks(
    settings: CallbackSettings,
    *,
    integration: str,
    rules: HostRules,
    network: NetworkSettings,
    metrics: Metrics,
    clock: Callable[[], datetime],
    remember: Callable[[SecretStr], None],
) -> AsyncIterator[Callbacks]:
    """Open the sessions of one integration's callbacks; they are closed with the block.

    The host of ``oauth.token_url`` is allowed for token requests and for nothing else: it needs no place among the
    callback hosts, and the bearer token is never sent to it.

    Args:
        settings: Token source, timeouts.
        integration: Its name.
        rules: Hosts that its callback URLs may name; http and private addresses.
        network: CA bundle and proxy.
        metrics: Of this process.
        clock: UTC, aware.
        remember: ``Redaction.add``, so that tokens which become known are masked in logs.

    Raises:
        FatalError: The CA bundle cannot be read.
    """
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_session(rules, network, "callback"))
        if settings.token_file is not None:
            tokens: TokenProvider = FileTokenProvider(settings.token_file, integration=integration, remember=remember)
        else:
            oauth = cast("OAuthSettings", settings.oauth)  # the settings hold exactly one of the two
            token_rules = rules.model_copy(update={"callback": (split_url(oauth.token_url).authority,)})
            tokens = OAuthTokenProvider(
                oauth,
                settings,
                integration=integration,
                session=await stack.enter_async_context(open_session(token_rules, network, "callback")),
                clock=clock,
                remember=remember,
            )
        caller = HttpCaller(
            settings,
            integration=integration,
            rules=rules,
            session=session,
            tokens=tokens,
            metrics=metrics,
            clock=clock,
        )
        yield Callbacks(caller, TokenWatch(tokens, integration=integration, metrics=metrics, clock=clock))
