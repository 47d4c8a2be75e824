"""Recorded connections whose names were seen: their later events, records and findings carry the name and the peer."""

import json
from collections.abc import Iterator
from functools import cache

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from keytrail.decode.decoder import Decoder
from keytrail.decode.redact import Redactor
from keytrail.domain.agent import AgentFacts
from keytrail.domain.drop import Drop
from keytrail.domain.event import Event, EventKind
from keytrail.domain.finding import Finding, Snapshot
from keytrail.domain.objects import Metadata
from keytrail.domain.peer import Peer, PeerKind
from keytrail.domain.peer_facts import ServiceAddresses
from keytrail.domain.rules import DetectionRule, DetectionRuleSpec, Maturity, Severity
from keytrail.enrich.peer_index import PeerIndex
from keytrail.enrich.peers import Peers
from keytrail.export.finding_line import finding_line
from keytrail.export.otlp_encode import RecordEncoder
from support.recordings import messages, window

WINDOW = "stolen-key"


@cache
def played() -> tuple[Event, ...]:
    """The events of a window with a TLS name, their peers looked up as they came."""
    peers = Peers()
    decoder = Decoder(Redactor().redact)
    decoder.peer_of = peers.of
    decoder.connect(AgentFacts(captures_environment=True))
    found = window("kubernetes", WINDOW)
    kept = []
    for number, raw in enumerate(messages("kubernetes")[: found["stream_last"] + 1]):
        event = decoder.decode(raw)
        assert not isinstance(event, Drop)
        if number >= found["stream_first"]:
            if event.kind is EventKind.SEND:
                peers.hear(event)
            _ = event.peer  # looked up now: what is learnt later is of later events
            kept.append(event)
    return tuple(kept)


def named() -> Iterator[Event]:
    """Events that carry a name which an earlier one of their connection gave."""
    return (one for one in played() if one.peer is not None and one.peer.host)


def test_events_after_the_client_hello_carry_its_name() -> None:
    """Sends and the end of the connection do; what came before, and the hello itself, have none of their own."""
    kinds = {one.kind for one in named()}
    assert EventKind.SEND in kinds or EventKind.CLOSE in kinds
    assert {one.peer.host for one in named() if one.peer is not None} == {"api.stripe.com"}
    hellos = [one for one in played() if one.payload is not None and one.payload.server_name]
    assert hellos
    assert not [one for one in hellos if one.peer is not None and one.peer.host]


def test_a_record_names_the_server_once() -> None:
    """`server.address` comes from the payload or from the connection's earlier name, never from both."""
    encoder = RecordEncoder({}, lambda: 1)
    seen = 0
    for event in played():
        record = LogRecord.FromString(encoder.encode(event)[1])
        keys = [one.key for one in record.attributes]
        assert len(keys) == len(set(keys)), keys
        values = {one.key: one.value.string_value for one in record.attributes}
        if "server.address" in values:
            assert values["server.address"] == "api.stripe.com"
            seen += 1
    assert seen > len([one for one in played() if one.payload is not None and one.payload.server_name])


def test_a_finding_keeps_the_peer_that_there_was() -> None:
    """What a finding says of the other end is as it was at the event, whoever has the address later."""
    index = PeerIndex()
    decoder = Decoder(Redactor().redact)
    decoder.peer_of = Peers(index).of
    decoded = (decoder.decode(raw) for raw in messages("kubernetes"))
    connects = (one for one in decoded if not isinstance(one, Drop) and one.kind is EventKind.CONNECT)
    event = next(one for one in connects if one.network is not None and one.network.family == "AF_INET")
    assert event.network is not None
    owner = ServiceAddresses("ml", "vectors", (event.network.peer_address,))
    index.service(("ml", "vectors"), owner)
    spec = DetectionRuleSpec(
        title="T",
        description="D.",
        severity=Severity.LOW,
        maturity=Maturity.STABLE,
        events=(EventKind.CONNECT,),
        condition="true",
        message="m",
    )
    finding = Finding(DetectionRule(metadata=Metadata(name="r"), spec=spec), "1", "m", Snapshot(event))
    index.service(("ml", "vectors"), None)
    assert finding.event.peer == event.peer == Peer(PeerKind.SERVICE, "ml", "vectors")
    line = json.loads(finding_line(finding))
    assert line["network"]["peer"] == {"kind": "service", "namespace": "ml", "name": "vectors"}
