"""Requests to an API server: bounds, words for a person, and who asks."""

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from keytrail.domain.errors import KubeError, KubeUnreachableError, SettingsError
from keytrail.kube import api as api_module
from keytrail.kube.access import from_kubeconfig, from_pod
from keytrail.kube.backoff import Backoff
from keytrail.kube.places import PODS, VERSION, Kind
from keytrail.kube.surroundings import in_pod
from kube.model_server import Collection, ModelServer

THINGS = Kind("things", "example.com")


def test_places() -> None:
    """Paths of built-in and other kinds; a name from elsewhere cannot lead to another place."""
    assert PODS.at().path == "/api/v1/pods"
    assert PODS.at("ml", "chat").path == "/api/v1/namespaces/ml/pods/chat"
    assert THINGS.at("ml", "a", "status").path == "/apis/example.com/v1/namespaces/ml/things/a/status"
    assert THINGS.at(name="../secrets?x=").path == "/apis/example.com/v1/things/..%2Fsecrets%3Fx%3D"
    assert str(THINGS.at("ml", "a", "status")) == "things/status.example.com a in namespace ml"


def test_a_server_that_asks_for_patience_gets_it() -> None:
    """Too many requests: the error says for how long to wait, within reason."""
    with ModelServer(Collection(refuse=(429, "too many requests", {"Retry-After": "7"}))) as server:
        with pytest.raises(
            KubeUnreachableError, match=r"cannot list things\.example\.com now: too many requests"
        ) as caught:
            server.api().get(THINGS.at())
        assert caught.value.retry_after == 7
        server.collection.refuse = (503, "away", {"Retry-After": "Sun, 22 Nov 2026 14:00:00 GMT"})
        with pytest.raises(KubeUnreachableError) as caught:
            server.api().get(THINGS.at())
        assert caught.value.retry_after == 0


def test_a_redirect_is_not_followed() -> None:
    """A token goes to the address that was given, and to no other."""
    with ModelServer(Collection(refuse=(302, "go elsewhere", {"Location": "http://127.0.0.1:1/"}))) as server:
        with pytest.raises(KubeError, match=r"cannot list things\.example\.com: go elsewhere"):
            server.api().get(THINGS.at())
        assert len(server.collection.requests) == 1


def test_an_answer_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is read as a whole ends at its bound instead of filling the memory."""
    monkeypatch.setattr(api_module, "_MOST_BYTES", 100)
    collection = Collection()
    collection.put("a", 1)
    with ModelServer(collection) as server, pytest.raises(KubeError, match="an answer of more than"):
        server.api().get(THINGS.at())


def test_nobody_there() -> None:
    """A port where nobody listens, and a name that is none: the words say which, and name the address."""
    server = ModelServer(Collection())
    with server:
        api = server.api()
    with pytest.raises(KubeUnreachableError, match=r"http://127\.0\.0\.1:\d+ cannot be reached: connection refused"):
        api.get(THINGS.at())
    assert api.usage()["list", "things"].failed == 1


def test_a_stream_is_stopped_by_another_thread() -> None:
    """A thread that waits for the next piece finds the end when another one says so."""
    with ModelServer(Collection()) as server:
        stream = server.api().stream("watch", THINGS.at(), watch="true", sendInitialEvents="true")
        pieces = iter(stream)
        assert b"initial-events-end" in next(pieces)
        reader = threading.Thread(target=_to_the_end, args=(pieces,), daemon=True)
        reader.start()
        stream.stop()
        reader.join(20)
        assert not reader.is_alive()
        with stream:
            pass


def test_a_silent_server_is_given_up() -> None:
    """After so long without a byte the stream ends with an error: no answer must not mean no change."""
    with ModelServer(Collection()) as server:
        stream = server.api().stream("watch", THINGS.at(), silence_seconds=0.2, watch="true", sendInitialEvents="true")
        with stream, pytest.raises(KubeUnreachableError, match="no answer in time"):
            list(stream)


def _to_the_end(pieces: Iterator[bytes]) -> None:
    with contextlib.suppress(KubeUnreachableError):
        list(pieces)


def account(folder: Path) -> Path:
    """What the kubelet mounts into a Pod."""
    folder.mkdir()
    (folder / "token").write_text("first\n")
    (folder / "ca.crt").write_text("")
    return folder


def test_a_rotated_token_is_read_again(tmp_path: Path) -> None:
    """The kubelet renews the file: it is read again every minute, and the last token is kept while it is not there."""
    folder, now = account(tmp_path / "account"), [0.0]
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    access = from_pod(environ, folder, clock=lambda: now[0])
    assert access.url == "https://[fd00::1]:443"
    assert access.headers() == {"Authorization": "Bearer first"}
    (folder / "token").write_text("second")
    now[0] = 59.0
    assert access.headers() == {"Authorization": "Bearer first"}
    now[0] = 61.0
    assert access.headers() == {"Authorization": "Bearer second"}
    (folder / "token").unlink()
    now[0] = 200.0
    assert access.headers() == {"Authorization": "Bearer second"}


def test_outside_of_a_pod(tmp_path: Path) -> None:
    """Without the variables or the token there is no way in, and the words say what to set."""
    folder = account(tmp_path / "account")
    environ = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    assert in_pod(environ, folder)
    assert not in_pod({}, folder)
    (folder / "token").unlink()
    assert not in_pod(environ, folder)
    with pytest.raises(SettingsError, match="outside of a Pod set `kubeconfig`"):
        from_pod(environ, folder)


def kubeconfig(folder: Path, **user: object) -> Path:
    """A kubeconfig with two contexts."""
    clusters = [{"name": name, "cluster": {"server": f"https://{name}.example:6443"}} for name in ("one", "two")]
    contexts = [{"name": name, "context": {"cluster": name, "user": "me"}} for name in ("one", "two")]
    users = [{"name": "me", "user": user}]
    config = {"clusters": clusters, "contexts": contexts, "users": users, "current-context": "one"}
    file = folder / "kubeconfig"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **config}))
    return file


def test_contexts_of_a_kubeconfig(tmp_path: Path) -> None:
    """The current context by default, another by its name; the user's token goes with it."""
    file = kubeconfig(tmp_path, token="t0ken")  # noqa: S106 - a made-up one
    assert from_kubeconfig(file).url == "https://one.example:6443"
    other = from_kubeconfig(file, "two")
    assert other.url == "https://two.example:6443"
    assert other.headers() == {"Authorization": "Bearer t0ken"}
    with pytest.raises(SettingsError, match=r"kubeconfig .*three"):
        from_kubeconfig(file, "three")


@pytest.mark.parametrize("content", ["", "hunter2: [", "hunter2", "[]", "clusters: hunter2", "\x00"])
def test_what_is_no_kubeconfig(tmp_path: Path, content: str) -> None:
    """A file that is none is refused by its name; its content is not quoted."""
    file = tmp_path / "kubeconfig"
    file.write_text(content)
    with pytest.raises(SettingsError, match="kubeconfig") as caught:
        from_kubeconfig(file)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(SettingsError, match="there is no such file"):
        from_kubeconfig(tmp_path / "absent")


def test_a_credential_plugin_is_asked(tmp_path: Path) -> None:
    """An exec plugin, as cloud providers have them, gives the token."""
    plugin = tmp_path / "plugin"
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "made"},
    }
    plugin.write_text(f"#!/bin/sh\necho '{json.dumps(credential)}'\n")
    plugin.chmod(0o755)
    exec_ = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    assert from_kubeconfig(kubeconfig(tmp_path, exec=exec_)).headers() == {"Authorization": "Bearer made"}


def test_pauses_double_and_are_spread() -> None:
    """From half a second to thirty; a server's wish is a lower bound; success begins anew."""
    pauses = Backoff(uniform=lambda: 1.0)
    assert [pauses.pause() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert pauses.pause(at_least=50) == 100
    pauses.reset()
    assert Backoff(uniform=lambda: 0.0).pause() == 0.25
    assert pauses.pause(at_least=0.1) == 0.5


def test_places_of_no_kind() -> None:
    """What is no object, such as the version, is named by its path."""
    assert str(VERSION) == "/version"
