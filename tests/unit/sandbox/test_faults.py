"""The sandbox misbehaves exactly as asked, and no longer."""

from __future__ import annotations

import hashlib
import time
from uuid import uuid4

import aiohttp
import pytest
from pydantic import ValidationError
from support.sandbox_world import prepare
from yarl import URL

from pipeline.sandbox import Fault, Faults, Sandbox

CARDS = {"records": 2000}


async def read_until_cut(http: aiohttp.ClientSession, url: URL, headers: dict[str, str] | None = None) -> bytes:
    """Return what came before the connection ended; fails where it did not end early."""
    got = b""
    try:
        async with http.get(url, headers=headers) as response:
            async for data in response.content.iter_any():
                got += data
    except aiohttp.ClientError:
        return got
    pytest.fail("the answer was not cut")


def test_faults_are_counted_down_and_kept_apart() -> None:
    """Each answer takes one of each kind, of its target and job; the rest stays."""
    faults, job = Faults(), uuid4()
    faults.add(Fault(target="input", kind="status", status=503, times=2))
    faults.add(Fault(target="input", kind="status", status=500))
    faults.add(Fault(target="input", kind="delay", job=job, times=0))
    assert faults.take("result") == {}
    assert [fault.status for fault in faults.take("input", uuid4()).values()] == [503]
    assert set(faults.take("input", job)) == {"status", "delay"}
    assert faults.take("input", job)["status"].status == 500
    assert set(faults.take("input", job)) == {"delay"}
    assert faults.waiting() == [{"target": "input", "kind": "delay", "job": str(job), "times": 0, "left": 0}]
    faults.clear()
    assert faults.take("input", job) == {}


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        ({"target": "cards", "kind": "cut"}, "cut is for input, result, not for cards"),
        ({"target": "input", "kind": "rate"}, "bytes_per_second"),
        ({"target": "callback", "kind": "answer"}, "needs answer"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(fault: dict[str, object], problem: str) -> None:
    """A typo must not leave a test without its fault."""
    with pytest.raises(ValidationError, match=problem):
        Fault.model_validate(fault)


@pytest.mark.parametrize("cut", [0, 1, 50_000])
async def test_a_download_is_cut_after_exactly_so_many_bytes(
    sandbox: Sandbox, http: aiohttp.ClientSession, cut: int
) -> None:
    """Twice, counted from the beginning of each answer; then it goes through."""
    job = await prepare(sandbox, cards=CARDS)
    stored = sandbox.store.disk.get(job.job.input_key)
    assert stored is not None
    whole = stored.path.read_bytes()
    sandbox.faults.add(Fault(target="input", kind="cut", after_bytes=cut, times=2))
    assert await read_until_cut(http, job.input_url) == whole[:cut]
    assert await read_until_cut(http, job.input_url, {"Range": "bytes=100-"}) == whole[100 : 100 + cut]
    async with http.get(job.input_url, headers={"Range": "bytes=7-"}) as response:
        assert await response.read() == whole[7:]
    assert sandbox.store.traffic.requests["GET", job.job.input_key, 0] == 2
    assert sandbox.store.traffic.round_trips(job.job.input_key) == 3


async def test_an_object_changes_in_mid_download(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """The running answer keeps its object; the next one, with the old ETag, is 412; the ledger follows."""
    job = await prepare(sandbox, cards=CARDS)
    before = job.job.ledger
    sandbox.faults.add(Fault(target="input", kind="change", after_bytes=1000))
    sandbox.faults.add(Fault(target="input", kind="cut", after_bytes=2000))
    got = await read_until_cut(http, job.input_url)
    assert len(got) == 2000
    async with http.get(job.input_url) as response:
        etag, whole = response.headers["ETag"], await response.read()
    assert not whole.startswith(got)
    assert job.job.ledger is not None
    assert job.job.ledger != before
    assert job.job.ledger.sha256 == hashlib.sha256(whole).hexdigest()
    async with http.get(job.input_url, headers={"If-Match": '"old"'}) as response:
        assert response.status == 412
    async with http.get(job.input_url, headers={"If-Match": etag}) as response:
        assert response.status == 200


async def test_a_download_can_be_slow_or_stall(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """So many bytes a second; or a pause in mid-body."""
    job = await prepare(sandbox, cards={"records": 5})
    stored = sandbox.store.disk.get(job.job.input_key)
    assert stored is not None
    sandbox.faults.add(Fault(target="input", kind="rate", bytes_per_second=stored.size * 20))
    sandbox.faults.add(Fault(target="input", kind="stall", after_bytes=3, seconds=0.03))
    sandbox.faults.add(Fault(target="input", kind="delay", seconds=0.02))
    began = time.monotonic()
    async with http.get(job.input_url) as response:
        assert await response.read() == stored.path.read_bytes()
    assert time.monotonic() - began > 0.09


async def test_a_range_can_be_ignored(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """200 with everything, as some gateways answer."""
    job = await prepare(sandbox)
    sandbox.faults.add(Fault(target="input", kind="whole"))
    async with http.get(job.input_url, headers={"Range": "bytes=10-"}) as response:
        assert response.status == 200
        assert "Content-Range" not in response.headers


@pytest.mark.parametrize(
    ("status", "code", "headers"),
    [
        (500, "InternalError", {}),
        (503, "SlowDown", {"Retry-After": "7"}),
        (409, "OperationAborted", {}),
        (412, "PreconditionFailed", {}),
        (404, "NoSuchKey", {}),
        (307, "TemporaryRedirect", {"Location": "https://elsewhere.example/input.csv"}),
    ],
)
async def test_the_store_answers_an_error_for_the_next_requests(
    sandbox: Sandbox, http: aiohttp.ClientSession, status: int, code: str, headers: dict[str, str]
) -> None:
    """With S3's code for the status, and the headers that were asked for."""
    job = await prepare(sandbox)
    fault = Fault(
        target="input",
        kind="status",
        status=status,
        retry_after=headers.get("Retry-After"),
        location=headers.get("Location"),
    )
    sandbox.faults.add(fault)
    async with http.get(job.input_url, allow_redirects=False) as response:
        assert response.status == status
        assert f"<Code>{code}</Code>" in await response.text()
        assert headers.items() <= dict(response.headers).items()
    async with http.get(job.input_url) as response:
        assert response.status == 200


async def test_a_url_can_expire_for_one_request(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """Before the body of a PUT is asked for."""
    job = await prepare(sandbox)
    sandbox.faults.add(Fault(target="result", kind="expired"))
    async with http.put(job.result_url, data=b"x", expect100=True) as response:
        assert response.status == 403
        assert "Request has expired" in await response.text()


async def test_an_upload_whose_answer_is_lost_is_kept(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """The object is there, the client never hears of it (aiohttp's client tries once more by itself)."""
    job = await prepare(sandbox)
    sandbox.faults.add(Fault(target="result", kind="lost", times=2))
    with pytest.raises(aiohttp.ClientError):
        await http.put(job.result_url, data=b"card")
    stored = sandbox.store.disk.get(job.job.result_key)
    assert stored is not None
    assert stored.path.read_bytes() == b"card"
    assert sandbox.store.traffic.requests["PUT", job.job.result_key, 0] == 2


async def test_an_upload_that_is_cut_stores_nothing(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """The connection ends after so many bytes were read (aiohttp's client tries once more by itself)."""
    job = await prepare(sandbox)
    sandbox.faults.add(Fault(target="result", kind="cut", after_bytes=3, times=2))
    with pytest.raises(aiohttp.ClientError):
        await http.put(job.result_url, data=b"card" * 1000)
    assert sandbox.store.disk.get(job.job.result_key) is None
    assert sandbox.store.traffic.received[job.job.result_key] == 6


async def test_an_upload_can_be_answered_with_another_etag(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """As if bytes had changed on the way."""
    job = await prepare(sandbox)
    sandbox.faults.add(Fault(target="result", kind="wrong_etag"))
    async with http.put(job.result_url, data=b"card") as response:
        wrong = response.headers["ETag"]
    async with http.put(job.result_url, data=b"card") as response:
        right = response.headers["ETag"]
    assert wrong != right
    assert len(wrong) == len(right) == 34


async def test_faults_of_one_job_leave_the_others_alone(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    """Jobs run side by side."""
    one, other = await prepare(sandbox), await prepare(sandbox)
    sandbox.faults.add(Fault(target="input", kind="status", job=one.job.guid))

    async def status(url: URL) -> int:
        async with http.get(url) as response:
            return response.status

    assert await status(other.input_url) == 200
    assert await status(one.input_url) == 500
