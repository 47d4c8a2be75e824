"""Actions become requests: what is sent for each, with what must hold, and what happens after a refusal."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import urllib3

from keytrail.domain.errors import KubeForbiddenError, KubeUnreachableError
from keytrail.kube.access import Access
from keytrail.kube.api import Api
from keytrail_operator.acting import Actor
from keytrail_operator.actions import OWN, TRACING_POLICIES, Apply, Create, Delete, Replace, WriteStatus


class Server:
    """An API server that takes everything, but for the answers that a test sets."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, Any], str]] = []
        self.answers: dict[str, int] = {}
        """Method -> status of its answers."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append((self.command, self.path, body, self.headers["Content-Type"]))
                text = json.dumps({"kind": "Status", "message": "no"}).encode()
                self.send_response(outer.answers.get(self.command, 200))
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.pool = urllib3.PoolManager(retries=False)
        url = f"http://127.0.0.1:{self.http.server_port}"
        self.api = Api(lambda: Access(url, self.pool, dict))

    def close(self) -> None:
        """End it, and its connections."""
        self.api.close()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of the test's own."""
    made = Server()
    yield made
    made.close()


POLICY = {"metadata": {"name": "keytrail-a", "uid": "u", "resourceVersion": "3"}}
ACTIONS = (
    Create(TRACING_POLICIES, POLICY),
    Replace(TRACING_POLICIES, POLICY, "somebody changed it"),
    Delete(TRACING_POLICIES, "keytrail-a", "u", "nothing needs it"),
    WriteStatus("PolicyLibrary", "default", "u", {"rules": {"enabled": 1}}),
    WriteStatus("IdentityMapping", "m", "u", {}, namespace="ml"),
    Apply(OWN["PolicyLibrary"], {"metadata": {"name": "default"}}),
)


def test_each_action_is_one_request(server: Server) -> None:
    """Method, path, body and preconditions of all of them."""
    actor = Actor(server.api)
    done = actor.do(ACTIONS)
    assert (done.writes, done.overtaken, done.error) == (6, 0, None)
    policies = "/apis/cilium.io/v1alpha1/tracingpolicies"
    own = "/apis/keytrail.io/v1alpha1"
    manager = "fieldManager=keytrail-operator"
    strict = f"{manager}&fieldValidation=Strict"
    sent = [(method, path) for method, path, _, _ in server.requests]
    assert sent == [
        ("POST", f"{policies}?{strict}"),
        ("PUT", f"{policies}/keytrail-a?{strict}"),
        ("DELETE", f"{policies}/keytrail-a"),
        ("PATCH", f"{own}/policylibraries/default/status?{manager}&force=true"),
        ("PATCH", f"{own}/namespaces/ml/identitymappings/m/status?{manager}&force=true"),
        ("PATCH", f"{own}/policylibraries/default?{manager}&force=true"),
    ]
    bodies = [body for _, _, body, _ in server.requests]
    assert bodies[1]["metadata"]["resourceVersion"] == "3"
    assert bodies[2]["preconditions"] == {"uid": "u"}
    assert bodies[3]["metadata"] == {"name": "default", "uid": "u"}
    assert bodies[4]["metadata"] == {"name": "m", "uid": "u", "namespace": "ml"}
    assert server.requests[3][3] == "application/apply-patch+yaml"
    assert actor.counts()["WriteStatus", "done"] == 2


@pytest.mark.parametrize("status", [409, 404])
def test_overtaken(server: Server, status: int) -> None:
    """That somebody else was quicker is no failure: the rest is done, and the next world decides."""
    server.answers["DELETE"] = status
    done = Actor(server.api).do(ACTIONS)
    assert (done.writes, done.overtaken, done.error) == (5, 1, None)


@pytest.mark.parametrize(("status", "error"), [(403, KubeForbiddenError), (503, KubeUnreachableError)])
def test_the_rest_is_left_out(server: Server, status: int, error: type[Exception]) -> None:
    """After a failure nothing else of the same reconciler is done: it may build on what failed."""
    server.answers["PUT"] = status
    actor = Actor(server.api)
    done = actor.do(ACTIONS)
    assert (done.writes, type(done.error)) == (1, error)
    assert [method for method, *_ in server.requests] == ["POST", "PUT"]
    assert actor.counts()["Replace", "failed"] == 1


def test_what_is_refused_stops_nothing_else(server: Server) -> None:
    """An object that the API server does not take is remembered with its words until it takes it; the rest is done."""
    server.answers["POST"] = 422
    actor = Actor(server.api)
    done = actor.do(ACTIONS)
    assert (done.writes, done.error) == (5, None)
    assert actor.counts()["Create", "refused"] == 1
    assert actor.refused == {}  # the replacement under the same name was taken
    actor.do(ACTIONS[:1])
    assert "cannot create tracingpolicies.cilium.io: no" in actor.refused["keytrail-a"]


def test_a_kind_that_is_gone(server: Server) -> None:
    """Making an object of a kind that the API server no longer has ends the run."""
    server.answers["POST"] = 404
    done = Actor(server.api).do(ACTIONS)
    assert done.error is not None
    assert len(server.requests) == 1


def test_actions_say_what_they_do() -> None:
    """Each prints as one line for the log."""
    assert list(map(str, ACTIONS)) == [
        "create tracingpolicies.cilium.io keytrail-a",
        "replace tracingpolicies.cilium.io keytrail-a: somebody changed it",
        "delete tracingpolicies.cilium.io keytrail-a: nothing needs it",
        "write policylibraries/status.keytrail.io default",
        "write identitymappings/status.keytrail.io m in namespace ml",
        "apply policylibraries.keytrail.io default",
    ]
