"""Events with any content that the type allows, for property tests."""

from hypothesis import strategies as st

from keytrail.domain.event import (
    Credentials,
    Details,
    Event,
    EventKind,
    EventType,
    Exit,
    FileAccess,
    HookArgument,
    Network,
    Operation,
    Payload,
)
from keytrail.domain.identity import Attribution, Evidence, EvidenceKind, Strength, Unknown
from keytrail.domain.process import Container, Pod, Process


class SeenEvent(Event):
    """An event with the details and credentials that a test gives it."""

    __slots__ = ("held", "raised", "seen")
    seen: Details
    held: tuple[HookArgument, ...]
    raised: Credentials | None

    @property
    def details(self) -> Details:
        """What the test gave."""
        return self.seen

    @property
    def arguments(self) -> tuple[HookArgument, ...]:
        """What the test gave."""
        return self.held

    @property
    def credentials(self) -> Credentials | None:
        """What the test gave."""
        return self.raised


TEXT = st.one_of(
    st.sampled_from(["", "/usr/bin/curl", "<enomem>", "\ud800", "caf\ufffd", "x" * 130, "x" * 20_000]),
    st.text(st.characters(), max_size=12),
)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
PID = st.integers(0, 2**32 - 1)
PORT = st.integers(0, 65_535)
ANY_INT = st.integers(-(2**63), 2**64 - 1)
TIME = st.integers(0, 2**64 - 1)
ATTRIBUTIONS = st.one_of(
    st.builds(Attribution, unknown=st.none() | st.sampled_from(Unknown)),
    st.lists(
        st.builds(
            Evidence,
            st.sampled_from(EvidenceKind),
            TEXT,
            TEXT,
            st.sampled_from(Strength),
            *(TEXT, TEXT, TEXT, TEXT),
            mapped=st.booleans(),
        ),
        min_size=1,
        max_size=3,
    ).map(lambda evidence: Attribution(tuple(evidence))),
)
PODS = st.builds(
    Pod,
    *(TEXT, TEXT, TEXT, TEXT),
    st.sampled_from(["", "Deployment", "CronJob", "Unheard"]),
    TEXT,
    st.builds(Container, TEXT, TEXT, st.sampled_from(["", "team/app:1.2"]), TEXT),
)
PROCESSES = st.builds(
    Process,
    TEXT,
    pid=PID,
    binary=TEXT,
    arguments=TEXT,
    cwd=TEXT,
    uid=PID,
    auid=st.integers(-1, 2**32),
    flags=TEXT,
    parent_exec_id=TEXT,
    container_id=TEXT,
    in_init_tree=st.booleans(),
    pod=st.none() | PODS,
    argument_credentials=TEXTS,
)
NETWORKS = st.builds(
    Network,
    st.sampled_from(["", "AF_INET", "AF_INET6", "AF_UNIX"]),
    st.sampled_from(["", "IPPROTO_TCP", "IPPROTO_UDP", "IPPROTO_ICMP"]),
    *(TEXT, PORT, TEXT, PORT, TIME),
)
PAYLOADS = st.builds(
    Payload,
    ANY_INT,
    st.sampled_from(["", "tls", "http", "dns"]),
    TEXT,
    st.sampled_from(["", "GET", "BREW"]),
    st.sampled_from(["", "api.openai.com"]),
    *(TEXT, TEXT),
)
OPERATIONS = st.builds(Operation, TEXT, TEXT, PID, TEXT, st.lists(ANY_INT, max_size=3).map(tuple), TEXTS, ANY_INT)
DETAILS = st.builds(
    Details,
    st.none() | NETWORKS,
    st.none() | st.builds(FileAccess, TEXT, TEXT, st.none() | st.integers(0, 0o7777), TEXT),
    st.none() | PAYLOADS,
    st.none() | OPERATIONS,
    st.none() | st.builds(Exit, st.integers(0, 255), st.sampled_from(["", "SIGKILL"]), ANY_INT),
    TEXT,
    returned=st.none() | ANY_INT,
    action=TEXT,
    message=TEXT,
    tags=TEXTS,
)
CREDENTIALS = st.builds(Credentials, PID, PID, PID, PID, TEXTS, TEXTS, st.integers(-1, 5))


@st.composite
def events(draw: st.DrawFn) -> SeenEvent:
    """Make any event."""
    event = SeenEvent(
        draw(st.sampled_from(EventKind)),
        draw(st.sampled_from(EventType)),
        draw(PROCESSES),
        time_ns=draw(TIME),
        function=draw(TEXT),
        node=draw(TEXT),
        parent=draw(st.none() | PROCESSES),
        policy=draw(TEXT),
        tid=draw(PID),
        time_estimated=draw(st.booleans()),
    )
    event.process.attribution = draw(st.none() | ATTRIBUTIONS)
    event.seen = draw(DETAILS)
    event.raised = draw(st.none() | CREDENTIALS)
    return event
