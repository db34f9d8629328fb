"""A partner's bucket on a real S3-compatible server: input and result files behind URLs that the test signs itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from urllib.parse import urlsplit

import aiohttp
import yarl
from support.seaweedfs import SeaweedFS

from pipeline.sandbox.sigv4 import Credentials, Pairs, presign

_EMPTY_CRC = (("x-amz-checksum-crc32", "AAAAAA=="), ("x-amz-sdk-checksum-algorithm", "CRC32"))
"""What ECS's AWS SDK adds to upload URLs."""


class PartnerBucket:
    """Signs URLs with the sandbox's own implementation of Signature Version 4, and uses them as a partner would."""

    def __init__(self, server: SeaweedFS, bucket: str) -> None:
        self.host = urlsplit(server.endpoint).netloc
        self._bucket = bucket
        self._credentials = Credentials(server.access_key, server.secret_key, region=server.region)

    def download_url(self, key: str, *, expires: int = 3600) -> str:
        """Return a pre-signed GET."""
        return self._url("GET", key, expires, (("x-id", "GetObject"),))

    def upload_url(self, key: str, *, expires: int = 3600, empty_crc: bool = False) -> str:
        """Return a pre-signed PUT, on request with the checksum of an empty body."""
        return self._url("PUT", key, expires, (*(_EMPTY_CRC if empty_crc else ()), ("x-id", "PutObject")))

    async def put(self, key: str, data: bytes) -> None:
        """Put an object; the server makes the bucket with its first one."""
        async with aiohttp.ClientSession() as session, session.put(_raw(self.upload_url(key)), data=data) as response:
            assert response.status == HTTPStatus.OK, await response.text()

    async def get(self, key: str) -> bytes | None:
        """Return an object, or None if there is none."""
        async with aiohttp.ClientSession() as session, session.get(_raw(self.download_url(key))) as response:
            if response.status == HTTPStatus.NOT_FOUND:
                return None
            assert response.status == HTTPStatus.OK, await response.text()
            return await response.read()

    def _url(self, method: str, key: str, expires: int, extra: Pairs) -> str:
        return presign(
            method,
            self.host,
            f"/{self._bucket}/{key}",
            credentials=self._credentials,
            now=datetime.now(UTC) - timedelta(seconds=1),
            expires=expires,
            extra=(("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"), *extra),
            scheme="http",
        )


def _raw(url: str) -> yarl.URL:
    return yarl.URL(url, encoded=True)
