"""An S3 server of its own process: moto's, which honours If-None-Match and If-Match."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import pytest

BUCKET = "bucket"
needs_server = pytest.mark.skipif(
    find_spec("obstore") is None or find_spec("moto") is None,
    reason="needs obstore and moto[s3,server]",
)


@contextmanager
def object_server() -> Iterator[dict[str, str]]:
    """A server with an empty bucket, and the environment that leads to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-c", f"from moto.server import main; main(['-p', '{port}'])"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _ask(f"{url}/moto-api/")
            _ask(f"{url}/{BUCKET}", "PUT")
            yield {
                "AWS_ENDPOINT_URL": url,
                "AWS_ALLOW_HTTP": "true",
                "AWS_ACCESS_KEY_ID": "key",
                "AWS_SECRET_ACCESS_KEY": "secret",
                "AWS_REGION": "us-east-1",
            }
        finally:
            server.kill()


def _ask(url: str, method: str = "GET") -> None:
    """Ask until there is an answer; tells which service is meant, as a signature does."""
    credential = f"Credential=key/{time.strftime('%Y%m%d')}/us-east-1/s3/aws4_request"
    request = urllib.request.Request(
        url, method=method, headers={"Authorization": f"AWS4-HMAC-SHA256 {credential}"}
    )
    end = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(request).close()
            return
        except OSError:
            assert time.monotonic() < end, "no server for a minute"
            time.sleep(0.05)
