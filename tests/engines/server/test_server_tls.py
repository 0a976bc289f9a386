"""A server whose certificate an authority of one's own has signed."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_server import FakeServer
from server_engine import SAMPLED, UNCHANGED, Connect, rollout

from mismatchscope.engines.server.client import Client
from mismatchscope.errors import EngineError

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the program openssl")


@dataclass(frozen=True)
class Authority:
    """`certificate` is what clients trust, `server` what a server on 127.0.0.1 shows."""

    certificate: Path
    server: ssl.SSLContext


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    directory = tmp_path_factory.mktemp("authority")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    openssl(*new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority of a test")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1")
    leaf = ("-addext", "basicConstraints=critical,CA:FALSE")
    openssl(*new, *signed, *leaf, "-keyout", "server.key", "-out", "server.pem", "-subj", "/CN=server of a test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem", directory / "server.key")
    return Authority(directory / "ca.pem", context)


def test_the_authority_that_is_named_is_trusted(
    authority: Authority, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with FakeServer("vllm", tls=authority.server) as server:
        assert server.url.startswith("https://")
        assert len(rollout(connect(server), SAMPLED, UNCHANGED)) == 5


def test_any_other_authority_is_not(
    authority: Authority, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("MISMATCHSCOPE_API_KEY", "sk-not-for-strangers")
    with FakeServer("vllm", tls=authority.server) as server:
        with pytest.raises(EngineError, match="shows a certificate that cannot be trusted: ") as caught:
            connect(server, retries="3")
        assert "export SSL_CERT_FILE=" in caught.value.hint
        assert server.authorizations == [], "nothing is sent before the certificate is checked"


def test_a_server_without_tls_behind_https_is_named() -> None:
    with FakeServer("vllm") as server:
        client = Client(server.url.replace("http:", "https:"), timeout=5, retries=0, key_env="NONE")
        with pytest.raises(EngineError, match=r"cannot be reached: .*SSL"):
            asyncio.run(client.get("/v1/models"))
