"""All that is eCard Systems' own about jobs: announcement, callback, tokens, answers."""

from pipeline.jobs.ecs.caller import HttpCaller
from pipeline.jobs.ecs.errors import TokenUnavailable
from pipeline.jobs.ecs.file_token import FileTokenProvider
from pipeline.jobs.ecs.oauth_token import OAuthTokenProvider
from pipeline.jobs.ecs.partner import EcsPartner, request_id
from pipeline.jobs.ecs.protocols import Token, TokenProvider
from pipeline.jobs.ecs.settings import CallbackSettings, OAuthSettings
from pipeline.jobs.ecs.token_watch import TokenWatch

__all__ = [
    "CallbackSettings",
    "EcsPartner",
    "FileTokenProvider",
    "HttpCaller",
    "OAuthSettings",
    "OAuthTokenProvider",
    "Token",
    "TokenProvider",
    "TokenUnavailable",
    "TokenWatch",
    "request_id",
]
