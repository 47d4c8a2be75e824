"""List and watch on a real API server: nothing is lost, whoever restarts, and what it costs is counted."""

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from keytrail.domain.errors import (
    KubeConflictError,
    KubeForbiddenError,
    KubeInvalidError,
    KubeNotFoundError,
    KubeUnreachableError,
)
from keytrail.kube.access import from_kubeconfig, from_pod
from keytrail.kube.api import Api
from keytrail.kube.backoff import Backoff
from keytrail.kube.places import VERSION, Kind
from keytrail.kube.store import Change, Key
from keytrail.kube.watch import Watch
from kube.gate import Gate
from support.components.child import Child, answers, free_ports
from support.components.control_plane import ControlPlane
from support.processes import wait_until

pytestmark = [pytest.mark.cluster("kubernetes", "kwok"), pytest.mark.timeout(240)]
CONFIG_MAPS = Kind("configmaps")
NAMESPACES = Kind("namespaces")
SECONDS = 60.0
Json = dict[str, Any]
Told = list[tuple[Change, str, str | None]]


@pytest.fixture(scope="module")
def api(control_plane: ControlPlane) -> Iterator[Api]:
    """The administrator's way in, by the kubeconfig."""
    found = Api.open(control_plane.kubeconfig, "", {})
    yield found
    found.close()


def namespace(api: Api, name: str) -> str:
    """Make a namespace of a test's own."""
    api.apply(
        NAMESPACES.at(name=name), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, manager="t"
    )
    return name


def config_map(where: str, name: str, value: str) -> Json:
    """A ConfigMap with one value."""
    metadata = {"name": name, "namespace": where}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"value": value}}


def write(api: Api, where: str, name: str, value: str) -> None:
    """Create or change a ConfigMap."""
    api.apply(CONFIG_MAPS.at(where, name), config_map(where, name, value), manager="test")


def value_of(raw: Json) -> str | None:
    """Keep the value; not of the one that every namespace has."""
    found = (raw.get("data") or {}).get("value")
    return str(found) if found is not None else None


@contextmanager
def watching(api: Api, where: str, told: Told, **options: Any) -> Iterator[Watch[str]]:
    """Watch the ConfigMaps of a namespace, without long pauses."""

    def take(change: Change, key: Key, value: str | None) -> None:
        told.append((change, key.name, value))

    watch = Watch(api, CONFIG_MAPS.at(where), value_of, take, pauses=Backoff(0.05, 0.5), **options)
    watch.start()
    try:
        yield watch
    finally:
        watch.close(SECONDS)
        assert not watch._thread.is_alive()


def delete(control_plane: ControlPlane, where: str, name: str) -> None:
    """Delete a ConfigMap."""
    control_plane.kubectl("delete", "configmap", name, f"--namespace={where}")


def test_changes_come_in_order(control_plane: ControlPlane, api: Api) -> None:
    """What is there is told of first; then creation, change and deletion, once each and in order."""
    where, told = namespace(api, "watch-order"), Told()
    write(api, where, "early", "0")
    with watching(api, where, told) as watch:
        assert watch.wait_synced(SECONDS)
        assert told == [(Change.ADDED, "early", "0")]
        for number in range(5):
            write(api, where, "late", str(number))
        api.patch(CONFIG_MAPS.at(where, "late"), {"metadata": {"labels": {"of": "nobody"}}})
        delete(control_plane, where, "late")
        write(api, where, "last", "9")
        assert wait_until(lambda: (Change.ADDED, "last", "9") in told, SECONDS)
        assert [(change, value) for change, name, value in told if name == "late"] == [
            (Change.ADDED, "0"),
            *((Change.CHANGED, str(number)) for number in range(1, 5)),
            (Change.DELETED, None),
        ]
        assert sorted(watch.objects()) == ["0", "9"]
        assert watch.state().lists == 1


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_restarts_lose_nothing(control_plane: ControlPlane, api: Api, end: str) -> None:
    """While API server and etcd are away the copy stays and the state says so; what changes afterwards arrives."""
    where, told, states = namespace(api, f"watch-restart-{end}"), Told(), []
    write(api, where, "before", "1")
    with watching(api, where, told, on_state=states.append) as watch:
        assert watch.wait_synced(SECONDS)
        for child in (control_plane.apiserver, control_plane.etcd):
            getattr(child, end)()
        assert wait_until(lambda: not watch.state().connected, SECONDS)
        assert watch.objects() == ["1"]
        assert "cannot be reached" in str(watch.state().error)
        control_plane.etcd.start()
        control_plane.apiserver.start()
        write(api, where, "after", "2")
        assert wait_until(lambda: told == [(Change.ADDED, "before", "1"), (Change.ADDED, "after", "2")], SECONDS)
        assert wait_until(lambda: watch.state().connected, SECONDS)
    assert [state.connected for state in states] == [True, False, True]


def compact(control_plane: ControlPlane) -> None:
    """Make etcd forget all history, as the API server has it done every five minutes."""
    url = control_plane.etcd_url
    key = {"key": base64.b64encode(b"any").decode()}
    revision = requests.post(f"{url}/v3/kv/range", json=key, timeout=20).json()["header"]["revision"]
    done = requests.post(f"{url}/v3/kv/compaction", json={"revision": revision, "physical": True}, timeout=20)
    assert done.ok, done.text


def test_a_history_that_is_gone_is_made_up_by_a_list(control_plane: ControlPlane, api: Api) -> None:
    """Behind a cut network, with etcd compacted and the API server restarted: 410, and then every difference, once."""
    where, told = namespace(api, "watch-gone"), Told()
    for name in ("stays", "goes", "again"):
        write(api, where, name, "1")
    with Gate(urlsplit(control_plane.url).port or 0) as gate:
        access = replace(from_kubeconfig(control_plane.kubeconfig), url=f"https://127.0.0.1:{gate.port}")
        with watching(Api(lambda: access), where, told) as watch:
            assert watch.wait_synced(SECONDS)
            gate.shut()
            assert wait_until(lambda: not watch.state().connected, SECONDS)
            del told[:]
            for name in ("goes", "again"):
                delete(control_plane, where, name)
            write(api, where, "again", "1")
            write(api, where, "comes", "2")
            compact(control_plane)
            control_plane.apiserver.stop()
            control_plane.apiserver.start()
            assert watch.objects() == ["1", "1", "1"]
            gate.open()
            assert wait_until(lambda: len(told) == 4, SECONDS)
            assert [(change, value) for change, name, value in told if name == "again"] == [
                (Change.DELETED, None),
                (Change.ADDED, "1"),
            ]
            assert {name for _, name, _ in told} == {"goes", "again", "comes"}
            assert watch.state().lists == 2


def test_a_server_that_streams_no_lists_is_watched_alike(control_plane: ControlPlane, api: Api) -> None:
    """Kubernetes before 1.34 refuses WatchList; lists of built-in and of custom kinds are read object by object."""
    where, told = namespace(api, "watch-list"), Told()
    many = [f"many-{number}" for number in range(300)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda name: write(api, where, name, "x" * 2000), many))
    (port,) = free_ports(1)
    options = [
        f"--secure-port={port}" if "--secure-port=" in str(one) else one for one in control_plane.apiserver._command
    ]
    options += ["--feature-gates=WatchList=false"]
    url = f"https://127.0.0.1:{port}"
    beside = Child(
        "older-apiserver",
        options[3:],  # without what Child itself puts in front
        control_plane._folder,
        ready=lambda: answers(f"{url}/readyz", ca=control_plane.ca),
        stop_seconds=3.0,
    )
    with beside:
        access = replace(from_kubeconfig(control_plane.kubeconfig), url=url)
        older = Api(lambda: access)
        with watching(older, where, told) as watch:
            assert watch.wait_synced(SECONDS)
            assert {name for _, name, _ in told} == set(many)
            write(api, where, "late", "1")
            assert wait_until(lambda: (Change.ADDED, "late", "1") in told, SECONDS)
        assert older.usage()["list", "configmaps"].received > 300 * 2000


def in_pod(control_plane: ControlPlane, folder: Path, token: str) -> Api:
    """The way in of a Pod with this token."""
    environ = control_plane.account(folder, token)
    return Api(lambda: from_pod(environ, folder))


def test_rights_that_are_missing_are_named(control_plane: ControlPlane, api: Api, tmp_path: Path) -> None:
    """A ServiceAccount without a Role is told the verb, the resource and the rule to add; given it, the watch works."""
    where, told = namespace(api, "watch-rights"), Told()
    write(api, where, "one", "1")
    assert wait_until(lambda: "default" in control_plane.kubectl("get", "sa", f"--namespace={where}"), SECONDS)
    token = control_plane.kubectl("create", "token", "default", f"--namespace={where}").strip()
    own = in_pod(control_plane, tmp_path / "account", token)
    with watching(own, where, told) as watch:
        assert wait_until(lambda: watch.state().failures > 0, SECONDS)
        error = watch.state().error
        assert isinstance(error, KubeForbiddenError)
        assert f"not allowed to watch configmaps in namespace {where}: " in str(error)
        assert f'User "system:serviceaccount:{where}:default" cannot watch resource "configmaps"' in str(error)
        assert 'its Role lacks {apiGroups: [""], resources: ["configmaps"], verbs: ["watch"]}' in str(error)
        control_plane.kubectl(
            "create", "role", "r", "--verb=watch", "--verb=list", "--resource=configmaps", f"--namespace={where}"
        )
        control_plane.kubectl(
            "create", "rolebinding", "r", "--role=r", f"--serviceaccount={where}:default", f"--namespace={where}"
        )
        assert watch.wait_synced(SECONDS)
        assert told == [(Change.ADDED, "one", "1")]


def test_a_token_that_no_longer_counts_is_read_anew(control_plane: ControlPlane, api: Api, tmp_path: Path) -> None:
    """After a refusal the token's file is read again, however young the token in memory is."""
    where = namespace(api, "watch-token")
    assert wait_until(lambda: "default" in control_plane.kubectl("get", "sa", f"--namespace={where}"), SECONDS)
    own = in_pod(control_plane, tmp_path / "account", "taken-back")
    with pytest.raises(KubeForbiddenError, match="does not know who asks"):
        own.get(VERSION)
    token = control_plane.kubectl("create", "token", "default", f"--namespace={where}").strip()
    in_pod(control_plane, tmp_path / "account", token)
    assert own.get(VERSION)["gitVersion"].startswith("v1.")


def test_another_authority_is_not_trusted(control_plane: ControlPlane, tmp_path: Path) -> None:
    """A server whose certificate is not the cluster's gets no token, and the words say why."""
    own = in_pod(control_plane, tmp_path / "account", control_plane.token)
    other = control_plane._folder / "kube-scheduler" / "kube-scheduler.crt"
    (tmp_path / "account" / "ca.crt").write_bytes(other.read_bytes())
    with pytest.raises(KubeUnreachableError, match="its certificate is not trusted"):
        own.get(VERSION)


def test_each_request_is_counted(api: Api) -> None:
    """Requests, failures and bytes by verb and resource; the objects' own bytes are in them."""
    where, fresh = namespace(api, "watch-bytes"), Api(api._open)
    body = config_map(where, "one", "x" * 5000)
    made = fresh.create(CONFIG_MAPS.at(where), body)
    made["data"] = {"value": "y"}
    fresh.replace(CONFIG_MAPS.at(where, "one"), made)
    with pytest.raises(KubeConflictError):
        fresh.replace(CONFIG_MAPS.at(where, "one"), made)
    with pytest.raises(KubeNotFoundError, match=f"cannot get configmaps two in namespace {where}"):
        fresh.get(CONFIG_MAPS.at(where, "two"))
    with pytest.raises(KubeInvalidError):
        fresh.create(CONFIG_MAPS.at(where), {**body, "data": "text"})
    assert len(fresh.get(CONFIG_MAPS.at(where))["items"]) >= 1
    told = Told()
    with watching(fresh, where, told) as watch:
        assert watch.wait_synced(SECONDS)
    usage = fresh.usage()
    assert usage["create", "configmaps"].requests == 2
    assert usage["create", "configmaps"].failed == 1
    assert usage["create", "configmaps"].sent > 5000
    assert usage["create", "configmaps"].received > 5000
    assert usage["update", "configmaps"].requests == 2
    assert usage["get", "configmaps"].failed == 1
    assert usage["list", "configmaps"].requests == 1
    assert usage["watch", "configmaps"].received > 100
    fresh.close()
