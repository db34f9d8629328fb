"""Makes clients of S3-compatible servers from the settings."""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import obstore.store

from pipeline.errors import FatalError
from pipeline.storage.settings import S3Settings

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

_CONNECT_TIMEOUT: Final = timedelta(seconds=5)
"""A store in the same region answers in milliseconds; after this long it is unavailable."""


def client_of(settings: S3Settings, *, total: timedelta, retries: int, bulk: bool = False) -> obstore.store.S3Store:
    """Return a client, without contacting the server.

    Args:
        settings: Bucket, server and credentials.
        total: How long one request with its whole answer may take.
        retries: How often the client retries a request at once after 5xx answers and lost connections.
        bulk: Whether it deletes with the bulk request, even a single object.

    Raises:
        FatalError: ``ca_file`` cannot be used (``store_ca_unreadable``).
    """
    limit = timedelta(seconds=settings.request_timeout_seconds)
    options: ClientConfig = {
        "allow_http": settings.allow_http,
        "connect_timeout": _CONNECT_TIMEOUT,
        "read_timeout": limit,
        "timeout": total,
        "user_agent": "card-pipeline",
    }
    if settings.proxy is not None:
        options["proxy_url"] = settings.proxy
    if settings.ca_file is not None:
        options["root_certificate"] = _certificates(settings.ca_file)
    retry: RetryConfig = {"max_retries": retries, "retry_timeout": limit * (retries + 1)}
    return obstore.store.S3Store(
        settings.bucket,
        prefix=settings.prefix or None,
        config=_config(settings, bulk=bulk),
        client_options=options,
        retry_config=retry,
    )


def _certificates(file: Path) -> bytes:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
        return file.read_bytes()
    except OSError as error:  # includes SSLError
        raise FatalError(
            "store_ca_unreadable",
            f"store.ca_file: {file}: the file is missing, not readable, or has no certificate in PEM",
        ) from error


def _config(settings: S3Settings, *, bulk: bool) -> S3Config:
    config: S3Config = {
        "region": settings.region,
        "virtual_hosted_style_request": not settings.path_style,
        "disable_bulk_delete": not bulk,
        "conditional_put": "etag",
    }
    if settings.endpoint is not None:
        config["endpoint"] = settings.endpoint.rstrip("/")
    for name in ("access_key_id", "secret_access_key", "session_token"):
        if (secret := getattr(settings, name)) is not None:
            config[name] = secret.get_secret_value()
    return config
