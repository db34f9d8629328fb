from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiokafka.errors import KafkaConnectionError
from pydantic import SecretStr

from pipeline.kafka import SaslSettings
from pipeline.kafka.client.oauth import OAuthBearer


class TokenEndpoint:
    """Answers as the test says, and records its requests."""

    def __init__(self) -> None:
        self.answer: Any = {"access_token": "token-1", "expires_in": 3600}
        self.status = 200
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.release = asyncio.Event()
        self.release.set()
        self.server = TestServer(self._app())

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/token", self._token)
        return app

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append((request.headers["Authorization"], form))
        await self.release.wait()
        if isinstance(self.answer, str):
            return web.Response(text=self.answer, status=self.status)
        return web.json_response(self.answer, status=self.status, headers={"Location": "/elsewhere"})

    def provider(self, *, timeout_seconds: float = 5.0, **changes: object) -> OAuthBearer:
        sasl = SaslSettings(
            mechanism="OAUTHBEARER",
            token_url=str(self.server.make_url("/token")),
            client_id="me:too",
            client_secret=SecretStr("p&ss"),
        )
        return OAuthBearer(sasl.model_copy(update=changes), None, timeout_seconds=timeout_seconds)


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    made = TokenEndpoint()
    async with made.server:
        yield made


async def test_client_credentials_as_the_rfc_has_them(endpoint: TokenEndpoint) -> None:
    """RFC 6749: grant type and scope in a form (4.4.2), id and secret urlencoded in Authorization (2.3.1)."""
    assert await endpoint.provider(scope="kafka").token() == "token-1"
    basic = "Basic bWUlM0F0b286cCUyNnNz"  # me%3Atoo:p%26ss
    assert endpoint.asked == [(basic, {"grant_type": "client_credentials", "scope": "kafka"})]


async def test_connections_share_a_token_until_most_of_its_life_is_over(endpoint: TokenEndpoint) -> None:
    provider = endpoint.provider()
    endpoint.answer = {"access_token": "token-1", "expires_in": 0.025}
    assert await asyncio.gather(*(provider.token() for _ in range(5))) == ["token-1"] * 5
    assert len(endpoint.asked) == 1
    await asyncio.sleep(0.03)
    endpoint.answer = {"access_token": "token-2"}
    assert await provider.token() == "token-2"
    assert await provider.token() == "token-2"
    assert len(endpoint.asked) == 2


@pytest.mark.parametrize("status", [302, 401, 500])
async def test_a_refusal_is_a_failed_connection(endpoint: TokenEndpoint, status: int) -> None:
    """The client library backs off and tries again. A redirect is not followed, because the request has the secret."""
    endpoint.status = status
    with pytest.raises(KafkaConnectionError, match=str(status)):
        await endpoint.provider().token()
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize("answer", ["no json", [], {"access_token": ""}, {"token": "x"}])
async def test_an_answer_without_a_token_is_a_failed_connection(endpoint: TokenEndpoint, answer: object) -> None:
    endpoint.answer = answer
    with pytest.raises(KafkaConnectionError, match="no access_token"):
        await endpoint.provider().token()


async def test_a_silent_endpoint_costs_its_timeout(endpoint: TokenEndpoint) -> None:
    endpoint.release.clear()
    with pytest.raises(KafkaConnectionError, match=r"no answer in 0\.1 s"):
        await endpoint.provider(timeout_seconds=0.1).token()
    endpoint.release.set()


async def test_an_endpoint_that_is_not_there_is_a_failed_connection(endpoint: TokenEndpoint) -> None:
    provider = endpoint.provider(token_url="http://127.0.0.1:1/token")
    with pytest.raises(KafkaConnectionError, match="token endpoint"):
        await provider.token()
