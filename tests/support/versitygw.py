"""Another S3 server for tests: Versity S3 Gateway over a folder, on loopback. ``make versitygw`` builds it."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.seaweedfs import ACCESS_KEY, SECRET_KEY, SeaweedFS

BUILT = Path(__file__).parents[2] / "build" / "bin" / "versitygw"
_START_SECONDS = 60.0


def find_versitygw() -> Path | None:
    """Return the server's binary: built by ``make versitygw``, or on the path."""
    if BUILT.is_file():
        return BUILT
    found = shutil.which("versitygw")
    return Path(found) if found else None


@pytest.fixture(scope="session")
def versitygw() -> Iterator[SeaweedFS]:
    """Start one server for all tests of the session, stop it at the end."""
    binary = find_versitygw()
    if binary is None:
        pytest.skip("needs the binary `versitygw`: `make versitygw` builds it with Go, in some minutes")
    with running_versitygw(binary) as server:
        yield server


@contextmanager
def running_versitygw(binary: Path) -> Iterator[SeaweedFS]:
    """Run the server over a short-lived folder, with one bucket."""
    with tempfile.TemporaryDirectory(prefix="versitygw-") as name, socket.socket() as free:
        folder = Path(name)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        server = SeaweedFS(endpoint=f"http://127.0.0.1:{port}")
        (folder / "data" / server.bucket).mkdir(parents=True)
        free.close()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [str(binary), "--port", f"127.0.0.1:{port}", "posix", str(folder / "data")],
                env=os.environ | {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            _wait_until_up(process, port, folder / "log")
            yield server
        finally:
            process.kill()
            process.wait()


def _wait_until_up(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/probe")
            connection.getresponse()
        except OSError:
            time.sleep(0.1)
        else:
            return
        finally:
            connection.close()
    raise RuntimeError(f"Versity S3 Gateway did not start: {log.read_text(errors='replace')[-2000:]}")
