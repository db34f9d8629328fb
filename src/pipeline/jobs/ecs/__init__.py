"""All that is eCard Systems' own about jobs: announcement, callback, tokens, answers."""

from pipeline.jobs.ecs.caller import HttpCaller
from pipeline.jobs.ecs.partner import EcsPartner, request_id
from pipeline.jobs.ecs.settings import CallbackSettings, OAuthSettings
from pipeline.jobs.ecs.token_watch import TokenWatch
from pipeline.jobs.ecs.tokens import EcsTokens, FileTokenProvider, TokenProvider

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
