"""Judging that fails for a while: what the API server gave is put in force all the same, and one line tells of it."""

import logging
from collections.abc import Mapping, Sequence

import pytest

from keytrail.aside import AsideError
from keytrail.domain.objects import ObjectName, Resource
from keytrail.domain.shape import Fault
from keytrail.kube.backoff import Backoff
from keytrail.kube.config_watch import ConfigWatch
from kube.model_server import Collection, ModelServer
from support.processes import wait_until

SECONDS = 60.0
MAPPING = {
    "apiVersion": "keytrail.io/v1alpha1",
    "kind": "ClusterIdentityMapping",
    "metadata": {"name": "shop", "uid": "u", "resourceVersion": "1", "generation": 1},
    "spec": {"identity": {"kind": "api_key", "provider": "shop"}, "evidence": {"env": [{"name": "SHOP_KEY"}]}},
}


def test_failed_judging_is_repeated(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing changes meanwhile, so that only a repeat can help; it is said that it failed, and that it is over."""
    caplog.set_level(logging.INFO, "keytrail")
    failures = [AsideError("judge: no answer within 120 s"), AsideError("judge: no answer within 120 s"), MemoryError()]
    given: list[tuple[Resource, ...]] = []

    def judge(_: Sequence[Resource]) -> Mapping[ObjectName, Sequence[Fault]]:
        if failures:
            raise failures.pop(0)
        return {}

    with ModelServer(Collection(objects={"shop": MAPPING})) as server:
        watch = ConfigWatch(server.api(), judge, given.append, retries=Backoff(0.01, 0.1))
        watch.start()
        try:
            assert watch.wait_settled(SECONDS)
            assert wait_until(lambda: bool(given), SECONDS)
        finally:
            watch.stop()
            server.collection.cut()
            watch.close(SECONDS)
    assert [one.metadata.name for one in given[-1]] == ["shop"]
    told = [message for message in caplog.messages if "in force:" in message and "trying again" in message]
    assert told == [
        "cannot put the API server's resources in force: judge: no answer within 120 s; trying again",
        "cannot put the API server's resources in force: MemoryError; trying again",
    ]
    assert caplog.messages.count("the API server's resources are in force after all") == 1
