"""Everything specific to eCard Systems: its announcement, callback, tokens and answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.jobs.ecs.settings import CallbackSettings, OAuthSettings
from pipeline.on_demand import on_demand

if TYPE_CHECKING:
    from pipeline.jobs.ecs.caller import HttpCaller
    from pipeline.jobs.ecs.partner import EcsPartner, request_id
    from pipeline.jobs.ecs.token_watch import TokenWatch
    from pipeline.jobs.ecs.tokens import EcsTokens, FileTokenProvider, TokenProvider
else:
    __getattr__ = on_demand(
        __name__,
        caller="HttpCaller",
        partner="EcsPartner request_id",
        token_watch="TokenWatch",  # noqa: S106 - the name of a module
        tokens="EcsTokens FileTokenProvider TokenProvider",
    )

__all__ = [
    "CallbackSettings",
    "EcsPartner",
    "EcsTokens",
    "FileTokenProvider",
    "HttpCaller",
    "OAuthSettings",
    "TokenProvider",
    "TokenWatch",
    "request_id",
]
