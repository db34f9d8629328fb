"""Telling eCard Systems the outcome of a job: tokens, requests, answers."""

from pipeline.jobs.ecs.caller import HttpCaller
from pipeline.jobs.ecs.errors import TokenUnavailable
from pipeline.jobs.ecs.exchange import UNANSWERED
from pipeline.jobs.ecs.file_token import FileTokenProvider
from pipeline.jobs.ecs.oauth_token import OAuthTokenProvider
from pipeline.jobs.ecs.opening import Callbacks, open_callbacks
from pipeline.jobs.ecs.protocols import Answer, Caller, Token, TokenProvider
from pipeline.jobs.ecs.request_id import request_id
from pipeline.jobs.ecs.settings import CallbackSettings, OAuthSettings
from pipeline.jobs.ecs.token_watch import TokenWatch
from pipeline.jobs.ecs.wording import quote, shorten

__all__ = [
    "UNANSWERED",
    "Answer",
    "CallbackSettings",
    "Callbacks",
    "Caller",
    "FileTokenProvider",
    "HttpCaller",
    "OAuthSettings",
    "OAuthTokenProvider",
    "Token",
    "TokenProvider",
    "TokenUnavailable",
    "TokenWatch",
    "open_callbacks",
    "quote",
    "request_id",
    "shorten",
]
