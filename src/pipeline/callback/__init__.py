"""Telling eCard Systems the outcome of a job: tokens, requests, answers."""

from pipeline.callback.caller import HttpCaller
from pipeline.callback.errors import TokenUnavailable
from pipeline.callback.exchange import UNANSWERED
from pipeline.callback.file_token import FileTokenProvider
from pipeline.callback.oauth_token import OAuthTokenProvider
from pipeline.callback.opening import Callbacks, open_callbacks
from pipeline.callback.protocols import Answer, Caller, Token, TokenProvider
from pipeline.callback.request_id import request_id
from pipeline.callback.retry import pause_seconds
from pipeline.callback.settings import CallbackSettings, OAuthSettings
from pipeline.callback.token_watch import TokenWatch
from pipeline.callback.wording import quote, shorten

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
    "pause_seconds",
    "quote",
    "request_id",
    "shorten",
]
