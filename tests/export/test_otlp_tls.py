"""TLS and mTLS to a real receiver: who is trusted, and that rotated files are picked up while running."""

import subprocess
from pathlib import Path

import pytest

from export.sending import bodies, both_protocols, resource_logs, running, settings_for
from keytrail.export.otlp_answer import Retry
from keytrail.export.otlp_http import HttpTransport
from keytrail.testing.otlp_sink import OtlpSink
from keytrail.testing.otlp_sink_receiver import ServerTls
from support.processes import wait_until


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an authority, a server certificate for 127.0.0.1, a client certificate, and an authority nobody trusts."""
    folder = tmp_path_factory.mktemp("pki")
    new_key = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    for name in ("ca", "other"):
        openssl([*new_key, "-x509", "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}"], folder)
    for name, extension in (("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")):
        openssl(
            [*new_key, "-x509", "-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", f"{name}.key", "-out", f"{name}.pem",
             "-subj", f"/CN={name}", "-addext", extension, "-addext", "basicConstraints=critical,CA:FALSE"],
            folder,
        )  # fmt: skip
    return folder


def openssl(command: list[str], folder: Path) -> None:
    """Run an openssl command."""
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@both_protocols
def test_tls_and_mutual_tls(pki: Path, protocol: str) -> None:
    """Records go to a server that the given authority vouches for, also one that wants a client certificate."""
    trust = {"CERTIFICATE": str(pki / "ca.pem")}
    identity = {"CLIENT_KEY": str(pki / "client.key"), "CLIENT_CERTIFICATE": str(pki / "client.pem")}
    for authorities, options in ((None, trust), (pki / "ca.pem", trust | identity)):
        with OtlpSink(tls=ServerTls(pki / "server.pem", pki / "server.key", authorities)) as sink:
            with running(settings_for(sink, protocol, **options)) as (_, queue):
                queue.put(resource_logs("a"))
                queue.wait(1)
            assert bodies(sink) == ["a"]


@both_protocols
@pytest.mark.parametrize(
    "options", [{}, {"CERTIFICATE": "other.pem"}, {"CERTIFICATE": "ca.pem"}], ids=["no-ca", "other-ca", "no-client"]
)
def test_an_untrusted_connection_sends_nothing(pki: Path, protocol: str, options: dict[str, str]) -> None:
    """Without the right authority or the client certificate nothing is sent; the records wait and the error is kept."""
    with OtlpSink(tls=ServerTls(pki / "server.pem", pki / "server.key", pki / "ca.pem")) as sink:
        paths = {name: str(pki / file) for name, file in options.items()}
        with running(settings_for(sink, protocol, **paths)) as (sender, queue):
            queue.put(resource_logs("a"))
            assert wait_until(lambda: sender.state().reachable is False)
            assert sender.state().last_error != ""
            sender.close(0)
            assert queue.queued_records == 1
        assert sink.requests() == []


@both_protocols
def test_certificates_may_be_replaced_while_failing(pki: Path, tmp_path: Path, protocol: str) -> None:
    """A trust file that is wrong, then missing, then right is read anew at each connection."""
    trust = tmp_path / "trust.pem"
    trust.write_bytes((pki / "other.pem").read_bytes())
    with OtlpSink(tls=ServerTls(pki / "server.pem", pki / "server.key")) as sink:
        with running(settings_for(sink, protocol, CERTIFICATE=str(trust))) as (sender, queue):
            queue.put(resource_logs("a"))
            assert wait_until(lambda: sender.state().reachable is False)
            trust.unlink()
            assert wait_until(
                lambda: "trust.pem" in sender.state().last_error or "No such" in sender.state().last_error
            )
            trust.write_bytes((pki / "ca.pem").read_bytes())
            queue.wait(1)
        assert bodies(sink) == ["a"]


@both_protocols
def test_certificates_may_be_replaced_while_connected(pki: Path, tmp_path: Path, protocol: str) -> None:
    """A changed file ends a connection that works: the next one is made with what the file holds now."""
    trust = tmp_path / "trust.pem"
    trust.write_bytes((pki / "ca.pem").read_bytes())
    with OtlpSink(tls=ServerTls(pki / "server.pem", pki / "server.key")) as sink:
        with running(settings_for(sink, protocol, CERTIFICATE=str(trust))) as (sender, queue):
            queue.put(resource_logs("a"))
            queue.wait(1)
            assert wait_until(lambda: sender.state().in_flight == 0)
            trust.write_bytes((pki / "other.pem").read_bytes())
            queue.put(resource_logs("b"))
            assert wait_until(lambda: sender.state().reachable is False)
            trust.write_bytes((pki / "ca.pem").read_bytes())
            queue.wait(2)
        assert bodies(sink) == ["a", "b"]


def test_environment_of_http_is_as_users_expect(pki: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQUESTS_CA_BUNDLE vouches for a server, a certificate of our own settings wins over it, a proxy is used."""
    trust = {"CERTIFICATE": str(pki / "ca.pem")}
    with OtlpSink(tls=ServerTls(pki / "server.pem", pki / "server.key", None)) as sink:
        for bundle, options in (("ca.pem", {}), ("other.pem", trust)):
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pki / bundle))
            with running(settings_for(sink, "http/protobuf", **options)) as (_, queue):
                queue.put(resource_logs(bundle))
                queue.wait(1)
        assert bodies(sink) == ["ca.pem", "other.pem"]
    with OtlpSink() as sink:
        target = settings_for(sink, "http/protobuf", ENDPOINT="http://collector.invalid")
        monkeypatch.setenv("http_proxy", sink.http_endpoint)
        monkeypatch.delenv("no_proxy", raising=False)
        # There is no such name: whatever a server says, the proxy said it.
        assert not isinstance(HttpTransport(target).send(b"", 10), Retry)
