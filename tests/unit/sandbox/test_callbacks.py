"""What ECS accepts as a callback, and every way in which it refuses one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import timedelta
from typing import Any, ClassVar
from uuid import uuid4

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from support.sandbox_world import Clock, Prepared, Start, prepare

from pipeline.sandbox import Fault, Sandbox

SUCCESS = {"success": True, "records_processed": 200, "records_failed": 0, "error_message": None}
FAILURE = {"success": False, "records_processed": 12, "records_failed": 150, "error_message": "the file is no CSV"}


async def call_back(
    http: aiohttp.ClientSession,
    job: Prepared,
    body: object = FAILURE,
    *,
    token: str | None,
    request_id: str | None = None,
    media_type: str = "application/json",
    url: str | None = None,
) -> tuple[int, dict[str, Any]]:
    headers = {"Content-Type": media_type}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    if request_id is not None:
        headers["X-Request-Id"] = request_id
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with http.post(url or job.callback_url, data=data, headers=headers) as response:
        assert response.headers["Content-Type"] == "application/vnd.api+json"
        return response.status, json.loads(await response.read())


async def upload(http: aiohttp.ClientSession, job: Prepared) -> None:
    async with http.put(job.result_url, data=b"result") as response:
        assert response.status == 200


async def test_success_is_answered_as_in_the_batch_page(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """data, meta and jsonapi as in the seed; the job is settled."""
    job = await prepare(sandbox)
    await upload(http, job)
    status, document = await call_back(http, job, SUCCESS, token=sandbox.token())
    guid = str(job.job.guid)
    assert status == 200
    assert document["data"] == {
        "type": "batch-job-result",
        "id": guid,
        "attributes": {
            "status": "RESULT_RECEIVED",
            "message": "Result upload confirmed",
            "received_at": "2026-01-21T22:43:59.000Z",
        },
    }
    assert document["meta"]["timestamp"] == "2026-01-21T22:43:59.000Z"
    assert document["meta"]["requestId"].startswith("req-")
    assert document["meta"]["version"] == "1.0.0"
    assert document["jsonapi"] == {"version": "1.0"}
    assert sandbox.ecs.status(job.job) == "RESULT_RECEIVED"
    assert await sandbox.ecs.wait_callback(job.job.guid, 1)


async def test_failure_needs_no_result_and_no_failed_count(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """In that case records_failed is optional."""
    job = await prepare(sandbox)
    body = {"success": False, "records_processed": 0, "error_message": "gone"}
    assert (await call_back(http, job, body, token=sandbox.token()))[0] == 200
    assert sandbox.ecs.status(job.job) == "FAILURE_RECEIVED"


@pytest.mark.parametrize(
    "message",
    ["é" * 1200, "expired at 2026-01-21T22:43:59Z", "line 123456: 12 fields", "x-amz-checksum-crc32 cannot be met"],
)
async def test_messages_within_the_rules_are_accepted(
    sandbox: Sandbox, http: aiohttp.ClientSession, message: str
) -> None:
    """1,200 characters, not bytes; times and line numbers are no card numbers; a parameter may be named."""
    job = await prepare(sandbox)
    assert (await call_back(http, job, FAILURE | {"error_message": message}, token=sandbox.token()))[0] == 200


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"not json", 400, "not JSON"),
        (b'{"success": true, "records_processed": NaN}', 400, "not JSON"),
        (b"\xff", 400, "not JSON"),
        ([], 422, "not a JSON object"),
        (SUCCESS | {"success": "true"}, 422, "success"),
        (SUCCESS | {"success": None}, 422, "success"),
        (SUCCESS | {"records_processed": "200"}, 422, "records_processed"),
        (SUCCESS | {"records_processed": True}, 422, "records_processed"),
        (SUCCESS | {"records_processed": 200.0}, 422, "records_processed"),
        (SUCCESS | {"records_processed": -1}, 422, "records_processed"),
        (SUCCESS | {"records_failed": None}, 422, "records_failed"),
        (FAILURE | {"records_failed": "150"}, 422, "records_failed"),
        (FAILURE | {"error_message": None}, 422, "error_message"),
        (FAILURE | {"error_message": " "}, 422, "error_message"),
        (SUCCESS | {"error_message": 7}, 422, "error_message"),
        (FAILURE | {"error_message": "x" * 1201}, 422, "1201 characters"),
        (FAILURE | {"error_message": "see https://files.example/input"}, 422, "URL"),
        (FAILURE | {"error_message": "X-Amz-Signature=00"}, 422, "URL"),
        (FAILURE | {"error_message": "card 9999991234567890 is bad"}, 422, "card number"),
        (FAILURE | {"error_message": "card 9999 9912 3456 7890 is bad"}, 422, "card number"),
    ],
)
async def test_a_body_that_breaks_the_contract_is_refused(
    sandbox: Sandbox, http: aiohttp.ClientSession, body: object, status: int, reason: str
) -> None:
    """With a JSON:API error that says why; the job is not settled."""
    job = await prepare(sandbox)
    answered, document = await call_back(http, job, body, token=sandbox.token())
    assert answered == status
    assert document["errors"][0]["status"] == str(status)
    assert reason in document["errors"][0]["detail"]
    assert job.job.success is None


async def test_six_digit_cards_are_recognised_too(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """A number of this batch must not be in the message; another six-digit number may."""
    job = await prepare(sandbox, cards={"records": 50, "six_digits": True})
    token = sandbox.token()
    assert (await call_back(http, job, FAILURE | {"error_message": "card 100017"}, token=token))[0] == 422
    assert (await call_back(http, job, FAILURE | {"error_message": "line 100099"}, token=token))[0] == 200


async def test_unknown_fields_are_accepted_and_shown(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """A partner who sends more than the page names learns of it from the control API."""
    job = await prepare(sandbox)
    assert (await call_back(http, job, FAILURE | {"extra": 1}, token=sandbox.token()))[0] == 200
    assert sandbox.ecs.desk.of_job(job.job.guid)[0].unknown == ("extra",)


class TestTokens:
    """RFC 8725: what must not get through."""

    async def refused(self, sandbox: Sandbox, http: aiohttp.ClientSession, token: str | None) -> str:
        job = await prepare(sandbox)
        status, document = await call_back(http, job, token=token)
        assert status == 401
        assert job.job.success is None
        return str(document["errors"][0]["detail"])

    def claims(self, sandbox: Sandbox) -> dict[str, Any]:
        return jwt.decode(sandbox.token(), options={"verify_signature": False})

    async def test_a_missing_or_malformed_token(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        """No header, no token, another scheme, garbage."""
        assert "needed" in await self.refused(sandbox, http, None)
        for token in ("", "garbage", "a.b.c"):
            await self.refused(sandbox, http, token)

    async def test_another_scheme_than_bearer(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        """Basic with a good token is refused."""
        job = await prepare(sandbox)
        headers = {"Authorization": f"Basic {sandbox.token()}", "Content-Type": "application/json"}
        async with http.post(job.callback_url, json=FAILURE, headers=headers) as response:
            assert response.status == 401

    async def test_alg_none(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        """An unsigned token, however it is spelled."""
        claims = self.claims(sandbox)
        await self.refused(sandbox, http, jwt.encode(claims, "", algorithm="none"))
        for name in ("none", "None", "NONE"):
            parts = ({"alg": name, "typ": "JWT"}, claims)
            head, body = (base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts)
            await self.refused(sandbox, http, f"{head}.{body}.")

    @pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
    async def test_another_hash_with_the_right_secret(
        self, sandbox: Sandbox, http: aiohttp.ClientSession, algorithm: str
    ) -> None:
        """Only the pinned algorithm counts."""
        secret = sandbox.settings.jwt_secret.get_secret_value().ljust(64, "x")
        await self.refused(sandbox, http, jwt.encode(self.claims(sandbox), secret, algorithm=algorithm))

    async def test_the_right_secret_signing_for_another_algorithm(
        self, sandbox: Sandbox, http: aiohttp.ClientSession
    ) -> None:
        """A correct HS256 signature under a header that says HS512."""
        parts = ({"alg": "HS512", "typ": "JWT"}, self.claims(sandbox))
        text = ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts)
        secret = sandbox.settings.jwt_secret.get_secret_value().encode()
        digest = hmac.new(secret, text.encode(), hashlib.sha256).digest()
        signature = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        await self.refused(sandbox, http, f"{text}.{signature}")

    async def test_a_signature_by_an_rsa_key(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        """An asymmetric algorithm is not even tried."""
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
        await self.refused(sandbox, http, jwt.encode(self.claims(sandbox), key, algorithm="RS256"))

    async def test_another_secret(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        """Signed by someone else."""
        await self.refused(sandbox, http, jwt.encode(self.claims(sandbox), "x" * 32, algorithm="HS256"))

    async def test_a_changed_claim(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        """The signature covers the claims."""
        head, _, signature = sandbox.token().split(".")
        claims = self.claims(sandbox) | {"sub": str(uuid4())}
        body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
        await self.refused(sandbox, http, f"{head}.{body}.{signature}")

    @pytest.mark.parametrize(
        "claims",
        [
            {"aud": "somebody-else"},
            {"aud": ["ecs-partner-callbacks", "somebody-else"]},
            {"iss": "https://elsewhere.example"},
            {"sub": "not-a-guid"},
            {"sub": 7},
            {"exp": "soon"},
            {"exp": None},
            {"aud": None},
            {"iss": None},
            {"sub": None},
        ],
    )
    async def test_wrong_or_missing_claims(
        self, sandbox: Sandbox, http: aiohttp.ClientSession, claims: dict[str, object]
    ) -> None:
        """Issuer, audience, subject and expiry are all required and all compared."""
        await self.refused(sandbox, http, sandbox.token(claims=claims))

    async def test_an_expired_token(self, sandbox: Sandbox, http: aiohttp.ClientSession, clock: Clock) -> None:
        """On the sandbox's own clock, without leeway."""
        token = sandbox.token(lifetime=timedelta(seconds=10))
        clock.move(9)
        job = await prepare(sandbox)
        assert (await call_back(http, job, token=token))[0] == 200
        clock.move(1)
        assert await self.refused(sandbox, http, token) == "the token has expired"

    async def test_another_partner_finds_no_job(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        """A good token of another partner: the job does not exist for it."""
        job = await prepare(sandbox)
        status, document = await call_back(http, job, token=sandbox.token(claims={"sub": str(uuid4())}))
        assert status == 404
        assert document["errors"] == [
            {
                "status": "404",
                "title": "Job not found",
                "detail": f"No batch job found with GUID {job.job.guid}",
            }
        ]


async def test_an_unknown_job_is_404(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """A malformed GUID gets 404 too."""
    job = await prepare(sandbox)
    for guid in (str(uuid4()), "job-1"):
        url = job.callback_url.replace(str(job.job.guid), guid)
        assert (await call_back(http, job, token=sandbox.token(), url=url))[0] == 404


async def test_other_media_types_are_refused(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """JSON or JSON:API, parameters allowed."""
    job = await prepare(sandbox)
    assert (await call_back(http, job, token=sandbox.token(), media_type="text/plain"))[0] == 415
    accepted = "application/json; charset=utf-8"
    assert (await call_back(http, job, token=sandbox.token(), media_type=accepted))[0] == 200


async def test_success_without_a_result_is_409(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """ECS looks at its store."""
    job = await prepare(sandbox)
    status, document = await call_back(http, job, SUCCESS, token=sandbox.token())
    assert status == 409
    assert "no result" in document["errors"][0]["detail"]


class TestRequestIds:
    """Idempotency by X-Request-Id."""

    async def test_a_repeat_gets_the_first_answer_for_two_hours(
        self, sandbox: Sandbox, http: aiohttp.ClientSession, clock: Clock
    ) -> None:
        """Word for word; afterwards the job is simply confirmed already."""
        job, token = await prepare(sandbox), sandbox.token()
        first = await call_back(http, job, token=token, request_id="r-1")
        clock.move(7199)
        assert await call_back(http, job, token=token, request_id="r-1") == first
        clock.move(1)
        assert (await call_back(http, job, token=token, request_id="r-1"))[0] == 409
        assert [record.replayed for record in sandbox.ecs.desk.of_job(job.job.guid)] == [False, True, False]

    @pytest.mark.parametrize("conflict", [409, 422])
    async def test_the_same_id_with_another_payload_is_refused(
        self, start: Start, http: aiohttp.ClientSession, conflict: int
    ) -> None:
        """Another body or another job under a known id."""
        sandbox = await start(request_id_conflict_status=conflict)
        job, other, token = await prepare(sandbox), await prepare(sandbox), sandbox.token()
        await call_back(http, job, token=token, request_id="r-1")
        body = FAILURE | {"records_failed": 1}
        assert (await call_back(http, job, body, token=token, request_id="r-1"))[0] == conflict
        assert (await call_back(http, other, token=token, request_id="r-1"))[0] == conflict

    async def test_another_id_for_a_confirmed_job_is_409(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        """A callback without an id gets 409 too."""
        job, token = await prepare(sandbox), sandbox.token()
        assert (await call_back(http, job, token=token, request_id="r-1"))[0] == 200
        assert (await call_back(http, job, token=token, request_id="r-2"))[0] == 409
        assert (await call_back(http, job, token=token))[0] == 409

    async def test_a_failed_job_that_is_announced_again_is_open_again(
        self, sandbox: Sandbox, http: aiohttp.ClientSession
    ) -> None:
        """The same failure under the same id settles it again; or a success does."""
        job = await prepare(sandbox, webhook_url="http://127.0.0.1:9/")
        token = sandbox.token()
        first = await call_back(http, job, token=token, request_id="r-1")
        await sandbox.ecs.announce(job.job.guid, repeat=True)
        assert sandbox.ecs.status(job.job) == "FAILURE_RECEIVED"
        await sandbox.ecs.announce(job.job.guid)
        assert sandbox.ecs.status(job.job) == "NOT_ANNOUNCED"
        assert await call_back(http, job, token=token, request_id="r-1") == first
        assert await sandbox.ecs.wait_callback(job.job.guid, 1)
        await sandbox.ecs.announce(job.job.guid)
        await upload(http, job)
        assert (await call_back(http, job, SUCCESS, token=token, request_id="r-2"))[0] == 200
        await sandbox.ecs.announce(job.job.guid)
        assert sandbox.ecs.status(job.job) == "RESULT_RECEIVED"

    async def test_a_lost_answer_was_processed(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        """The job is settled; the repeat under the same id hears the first answer."""
        job, token = await prepare(sandbox), sandbox.token()
        sandbox.faults.add(Fault(target="callback", kind="lost"))
        with pytest.raises(aiohttp.ClientError):
            await call_back(http, job, token=token, request_id="r-1")
        assert job.job.success is False
        assert (await call_back(http, job, token=token, request_id="r-1"))[0] == 200
        assert [record.answered for record in sandbox.ecs.desk.of_job(job.job.guid)] == [0, 200]


async def test_every_callback_is_recorded_without_its_token(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """Body as it came, headers, time, what was decided and answered."""
    job, token = await prepare(sandbox), sandbox.token()
    sandbox.faults.add(Fault(target="callback", kind="status", status=401))
    await call_back(http, job, token=token, request_id="r-1")
    await call_back(http, job, token=token, request_id="r-1")
    await call_back(http, job, b"{", token=token)
    first, second, third = sandbox.ecs.desk.of_job(job.job.guid)
    assert (first.decided, first.answered) == (0, 401)
    assert (second.decided, second.answered, second.request_id) == (200, 200, "r-1")
    assert first.body == second.body == json.dumps(FAILURE).encode()
    assert second.headers["content-type"] == "application/json"
    assert (third.decided, third.reason) == (400, "the body is not JSON")
    assert token not in json.dumps([record.view() for record in (first, second, third)])


class TestMisbehaviour:
    """ECS as it should not be."""

    async def test_errors_for_the_next_callbacks(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        """Nothing is processed; Retry-After and Location as asked."""
        job, token = await prepare(sandbox), sandbox.token()
        sandbox.faults.add(Fault(target="callback", kind="status", status=503, times=2, retry_after="3"))
        for expected in (503, 503, 200):
            assert (await call_back(http, job, token=token))[0] == expected
        sandbox.faults.add(Fault(target="callback", kind="status", status=307, location="https://elsewhere.example/"))
        headers = {"Authorization": f"Bearer {token}"}
        async with http.post(job.callback_url, json={}, headers=headers, allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (307, "https://elsewhere.example/")

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            ("html", b"<html>"),
            ("empty", b""),
            ("not_json", b'{"data": '),
            ("other_job", b'"id": "00000000-0000-4000-8000-000000000000"'),
            ("other_type", b'"type": "batch-job"'),
            ("unknown_status", b'"status": "QUEUED_FOR_REVIEW"'),
        ],
    )
    async def test_wrong_answers_are_200(
        self, sandbox: Sandbox, http: aiohttp.ClientSession, answer: str, expected: bytes
    ) -> None:
        """The callback was processed; only the answer is odd."""
        job = await prepare(sandbox)
        sandbox.faults.add(Fault.model_validate({"target": "callback", "kind": "answer", "answer": answer}))
        headers = {"Authorization": f"Bearer {sandbox.token()}"}
        async with http.post(job.callback_url, json=FAILURE, headers=headers) as response:
            body = await response.read()
        assert response.status == 200
        assert expected in body
        assert job.job.success is False

    async def test_another_server_may_answer_instead_of_ecs(
        self, sandbox: Sandbox, http: aiohttp.ClientSession
    ) -> None:
        """A maintenance page: the callback was not processed."""
        job = await prepare(sandbox)
        sandbox.faults.add(Fault(target="callback", kind="status", status=203))
        sandbox.faults.add(Fault(target="callback", kind="answer", answer="html"))
        headers = {"Authorization": f"Bearer {sandbox.token()}"}
        async with http.post(job.callback_url, json=FAILURE, headers=headers) as response:
            assert (response.status, await response.read()) == (203, b"<html><body><h1>OK</h1></body></html>")
        assert job.job.success is None

    @pytest.mark.parametrize("status", ["500", 500])
    async def test_errors_in_a_200_spell_their_status_as_asked(
        self, sandbox: Sandbox, http: aiohttp.ClientSession, status: str | int
    ) -> None:
        """As a string or as a number."""
        job = await prepare(sandbox)
        sandbox.faults.add(Fault(target="callback", kind="answer", answer="errors", error_status=status))
        answered, document = await call_back(http, job, token=sandbox.token())
        assert answered == 200
        assert document["errors"][0]["status"] == status


class TestTokenEndpoint:
    """OAuth in ECS's form."""

    good: ClassVar = {
        "client_id": "sandbox-client",
        "client_secret": "sandbox-client-secret",
        "grant_type": "client_credentials",
    }

    async def ask(self, sandbox: Sandbox, http: aiohttp.ClientSession, body: object) -> tuple[int, dict[str, Any]]:
        async with http.post(sandbox.token_url, json=body) as response:
            return response.status, json.loads(await response.read())

    async def test_a_token_of_a_client_works(self, sandbox: Sandbox, http: aiohttp.ClientSession, clock: Clock) -> None:
        """A JSON:API document; the token counts until expires_in is over."""
        status, document = await self.ask(sandbox, http, self.good)
        attributes = document["data"]["attributes"]
        assert (status, attributes["token_type"], attributes["expires_in"]) == (200, "Bearer", 86_400)
        job = await prepare(sandbox)
        clock.move(86_399)
        assert (await call_back(http, job, token=attributes["access_token"]))[0] == 200
        clock.move(1)
        assert (await call_back(http, job, token=attributes["access_token"]))[0] == 401

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"client_secret": "wrong"}, 401),
            ({"client_id": "wrong"}, 401),
            ({"client_id": None}, 401),
            ({"grant_type": "password"}, 400),
        ],
    )
    async def test_others_get_no_token(
        self, sandbox: Sandbox, http: aiohttp.ClientSession, change: dict[str, object], expected: int
    ) -> None:
        """Wrong client, wrong secret, wrong grant."""
        status, document = await self.ask(sandbox, http, self.good | change)
        assert (status, document["errors"][0]["status"]) == (expected, str(expected))

    async def test_a_form_is_refused(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        """RFC 6749's encoding is not ECS's."""
        async with http.post(sandbox.token_url, data=self.good) as response:
            assert response.status == 400
        assert (await self.ask(sandbox, http, []))[0] == 400

    async def test_it_can_fail(self, sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
        """An error, or no answer at all."""
        sandbox.faults.add(Fault(target="token", kind="status", status=503, retry_after="1"))
        assert (await self.ask(sandbox, http, self.good))[0] == 503
        sandbox.faults.add(Fault(target="token", kind="lost"))
        with pytest.raises(aiohttp.ClientError):
            await self.ask(sandbox, http, self.good)
