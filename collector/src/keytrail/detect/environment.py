"""What a condition can talk about: every variable, field and function, with its type, meaning and source.

The one table from which the checker's declarations, the generated code, the oracle's messages and
docs/rule-language.md (`docs`) are made, so that none of them can know a field that the others do not.

A field's source is Python, over `{o}` (the object of the message) and `{e}` (the event).
It must be cheap, pure and never raise; what it calls stands in `reading`. Knows no rule and no compiler.
"""

# ruff: noqa: E501 - tables, read row by row

from dataclasses import dataclass
from typing import Final, Literal

FieldType = Literal["string", "int", "bool", "list(string)", "list(int)", "map(string, string)"]
DEFAULTS: Final[dict[str, object]] = {
    "string": "",
    "int": 0,
    "bool": False,
    "list(string)": (),
    "list(int)": (),
    "map(string, string)": {},
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message."""

    name: str
    type: FieldType
    meaning: str
    source: str
    present: str = ""
    """Python: whether the field is there; empty: when it differs from its type's default."""

    @property
    def plain(self) -> bool:
        """Whether reading it again costs no more than remembering it."""
        return self.source.startswith("{o}.") and self.source[4:].isidentifier()


@dataclass(frozen=True, slots=True)
class Message:
    """A type of object."""

    name: str
    fields: tuple[Field, ...]

    def field(self, name: str) -> Field:
        """Return a field that the checker has let pass."""
        return next(field for field in self.fields if field.name == name)


@dataclass(frozen=True, slots=True)
class Variable:
    """A name that a condition begins with."""

    name: str
    message: Message
    meaning: str
    source: str
    """Python, over `{e}`: an object, or a tuple of them; never None."""
    many: int = 0
    """Most objects that a list holds; 0: no list."""


def _text(name: str, meaning: str, source: str = "") -> Field:
    return Field(name, "string", meaning, source or f"{{o}}.{name}")


def _int(name: str, meaning: str, source: str = "", present: str = "") -> Field:
    return Field(name, "int", meaning, source or f"{{o}}.{name}", present)


def _bool(name: str, meaning: str, source: str = "") -> Field:
    return Field(name, "bool", meaning, source or f"{{o}}.{name}")


def _texts(name: str, meaning: str, source: str = "") -> Field:
    return Field(name, "list(string)", meaning, source or f"{{o}}.{name}")


PROCESS: Final = Message(
    "Process",
    (
        _text("name", "Last component of `binary`.", "{o}.binary.rpartition('/')[2]"),
        _text("binary", "Path as executed, absolute, symlinks kept; the script for a script; `/dev/fd/3` for a memfd."),
        _text("arguments", "Arguments after the first, joined by blanks, redacted. Quotes in it cannot be trusted."),
        _text("cwd", "Working directory at exec; `<enomem>` when padding hid the command line."),
        _int("pid", "Process id in the host's namespace."),
        _int("uid", "Effective user id at exec."),
        _int("auid", "Login user id; -1 when nobody logged in."),
        _text("exec_id", "The agent's id of this process image."),
        _text("parent_exec_id", "That of its parent image."),
        _text("container_id", "First 31 digits, from the cgroup's name alone: local root can forge it."),
        _text("flags", "The agent's flags of the exec."),
        _bool("in_init_tree", "Started by the container's own processes, not brought in from outside (`kubectl exec`)."),
        _bool("preexisting", "Ran before the agent did. A rule sees such processes only when it mentions this field."),
        _bool("truncated", "The agent could not read command line or environment."),
        _text("partial", "Why something about its workload is not known: `unknown_container`, `forged`, `not_announced`, ...", "partial({o})"),
        _text("claimed_pod", "`namespace/name` of the pod whose container's id it bears, even if it does not run there.", "claimed_pod({o})"),
        _texts("argument_credentials", "Names of the credential patterns that were redacted on the command line."),
        _texts("environment", "Names of the variables that are set; empty too when the agent does not capture them.", "({o}.environment or ())"),
        _bool("environment_known", "Whether `environment` could be looked at.", "({o}.environment is not None)"),
    ),
)  # fmt: skip

POD: Final = Message(
    "Pod",
    (
        _text("name", "The pod; `has(pod.name)` tells whether the process runs in one."),
        _text("namespace", "Its namespace."),
        _text("uid", "Its uid."),
        _text("workload", "Name of the workload that owns it."),
        _text("workload_kind", "Such as `Deployment`."),
        _text("service_account", "Its ServiceAccount."),
        _text("container", "Name of the container.", "{o}.container.name"),
        _text("container_id", "Id of the container.", "{o}.container.id"),
        _text("image", "Image of the container.", "{o}.container.image"),
        _bool("privileged", "Whether the container is privileged.", "{o}.container.privileged"),
        Field("labels", "map(string, string)", "The pod's labels.", "{o}.labels"),
        _texts("exec_commands", "Commands of its probes and lifecycle hooks, as `process.arguments` shows them."),
        _bool("host_network", "Whether it uses the node's network."),
        _bool("maybe_exec_probe", "The agent saw the command line of a probe; anyone who runs the same gets this."),
    ),
)  # fmt: skip

EVENT: Final = Message(
    "Event",
    (
        _text("kind", "Such as `exec`; for rules of several kinds.", "{o}.kind.value"),
        _text("type", "Message of the agent: `exec`, `exit`, `kprobe`, `lsm`, `tracepoint`, `uprobe`, ...", "{o}.type.value"),
        _text("function", "Hooked function without syscall prefix; empty for exec and exit."),
        _text("policy", "TracingPolicy that reported it."),
        _text("node", "Node."),
        _int("tid", "Thread that acted; 0 when unknown."),
        _int("returned", "What the hooked function returned.", "({o}.returned or 0)", "({o}.returned is not None)"),
        _text("action", "What the policy made the agent do, such as `SIGKILL`."),
        _texts("tags", "The policy's tags.", "{e}.details.tags"),
        _text("build_id", "Build id of a loaded library, hexadecimal.", "{e}.details.build_id"),
        _bool("time_estimated", "The agent sent no time: that of the event before is used."),
    ),
)  # fmt: skip

NETWORK: Final = Message(
    "Network",
    (
        _text("family", "`AF_INET`, `AF_INET6`, `AF_UNIX`."),
        _text("protocol", "`IPPROTO_TCP`, `IPPROTO_UDP`, ...; empty when the hook does not say."),
        _text("local_address", "This end."),
        _int("local_port", "Its port; 0 when unknown."),
        _text("peer_address", "The other end; a path for a unix socket."),
        _int("peer_port", "Its port; 0 when unknown."),
    ),
)

FILE: Final = Message(
    "File",
    (
        _text("path", "The file."),
        _text("name", "Its last component.", "{o}.path.rpartition('/')[2]"),
        _text("access", "`read`, `write`, `exec`, `open`, `load`, `map`, `truncate`, `chmod`, `chown`, `rename`, `link`, `symlink`, `unlink`, `times`, `xattr`."),
        _int("mode", "Permission bits of a chmod.", "({o}.mode or 0)", "({o}.mode is not None)"),
        _text("target", "Other path of a rename or link; name of an extended attribute."),
    ),
)  # fmt: skip

PAYLOAD: Final = Message(
    "Payload",
    (
        _int("size", "Bytes that were to be sent."),
        _text("protocol", "`tls`, `http`, `dns`, or empty."),
        _text("server_name", "TLS server name."),
        _text("http_method", "HTTP method."),
        _text("http_host", "HTTP host."),
        _text("dns_name", "DNS name that was asked for."),
        _text("credential", "Name of the pattern that matched a credential sent in plain text."),
    ),
)

OPERATION: Final = Message(
    "Operation",
    (
        _text("name", "Such as `load`, `request`, `setuid`, `attach`, `mount`, `unshare`, `SIGKILL`."),
        _text("target", "Module, program, path or process."),
        _int("target_pid", "Process it was done to."),
        _text("type", "Type of bpf object; file system of a mount."),
        Field("ids", "list(int)", "Arguments of a set*id call in order; -1 leaves one unchanged.", "{o}.ids"),
        _texts("capabilities", "Capabilities it is about."),
        _int("flags", "Flags of the call."),
    ),
)

EXIT: Final = Message(
    "Exit",
    (
        _int("code", "Exit code.", "(0 if {o}.signal else {o}.code)", "({o} is not NO_EXIT and not {o}.signal)"),
        _text("signal", "Signal that ended it."),
        _int("duration_ns", "From exec to exit; 0 when unknown."),
    ),
)

CREDENTIALS: Final = Message(
    "Credentials",
    (
        *(
            _int(name, meaning, present="({o} is not NO_CREDENTIALS)")
            for name, meaning in (
                ("uid", "Real user id at exec; `has(credentials.uid)` tells whether the agent sends credentials."),
                ("gid", "Real group id."),
                ("euid", "Effective user id."),
                ("egid", "Effective group id."),
            )
        ),
        _texts("capabilities", "Effective set."),
        _texts("raised", "How this exec gained privileges: `setuid`, `setgid`, `PRIVILEGES_RAISED_EXEC_FILE_SETUID`, ...", "{e}.gained"),
        _int("inode_links", "Hard links of the executed file; 0 for a memfd or deleted file.", "max({o}.inode_links, 0)", "({o}.inode_links >= 0)"),
    ),
)  # fmt: skip

IDENTITY: Final = Message(
    "Identity",
    (
        _text("id", "Identity that the evidence names; `has(identity.id)` tells whether there is one.", "{o}.identity_id"),
        _text("kind", "Such as `api_key`.", "{o}.identity_kind"),
        _text("provider", "Such as `openai`."),
        _text("owner", "Owner, as the mapping says."),
        _text("mapping", "The user's mapping that named it; empty when none did."),
        _text("strength", "`declared`, `observed`, `verified`, `used`.", "({o}.identity_id and str({o}.strength))"),
        _bool("mapped", "False for a variable that looks like a credential and that nothing knows.", "({o}.mapped and {o}.identity_id != '')"),
        _text("evidence", "Kind of evidence: `env`, `argv`, `file`, `secret`, ...", "({o}.identity_id and {o}.kind.value)"),
        _text("name", "What was seen: the variable, the word, the file.", "{o}.name"),
        _text("secret", "`namespace/name/key` of the Secret that it comes from, as the Pod's spec says.", "secret({o})"),
        _bool("undeclared", "A variable that neither the Pod's spec nor the container's image gave the process."),
        _bool("outside_secret", "A variable with the value of a Secret (`secret`) that the pod is not given. Needs fingerprints."),
        _texts("violations", "What the event has against the mapping's `allowed`: `workload`, `binary`, `destination`; `destination-unverified` where a host is expected and no name was seen.", "unexpected({o}, {e})"),
    ),
)  # fmt: skip

ARGUMENT: Final = Message(
    "Argument",
    (
        _int("index", "Position among the arguments that the policy asked for."),
        _text("label", "Label that the policy gave it."),
        _text("type", "Such as `int`, `string`, `file`, `sock`."),
        _int("int", "Its value, when it is a number.", "number({o}.value)"),
        _text("text", "Its value, when it is text or bytes (read as UTF-8).", "plain_text({o}.value)"),
    ),
)

PEER: Final = Message(
    "Peer",
    (
        _text("kind", "`pod`, `service`, `node`, `api-server`, `cluster`, `link-local`, `outside`; empty where nobody knows, as without Kubernetes.", "peer_kind({o})"),
        _text("namespace", "Namespace of the pod or Service."),
        _text("name", "Name of the pod, Service or node."),
        _text("service", "Service whose connections go to this pod and port."),
        _text("workload_kind", "Such as `Deployment`; where all pods are watched."),
        _text("workload", "Name of the pod's workload."),
        _text("host", "Host that the process asked for at this address and port before, in the clear."),
    ),
)  # fmt: skip

ATTRIBUTION: Final = Message(
    "Attribution",
    (
        _text("unknown", "Why nobody could look for an identity: `not_captured`, `filtered`, ...; empty when one could.", "({o}.unknown.value if {o}.unknown is not None else '')"),
    ),
)  # fmt: skip

VARIABLES: Final[tuple[Variable, ...]] = (
    Variable("process", PROCESS, "The acting process image.", "{e}.process"),
    Variable("parent", PROCESS, "Its parent image.", "({e}.parent or NO_PROCESS)"),
    Variable("ancestors", PROCESS, "Parent first, as far as known.", "ancestors({e})", many=32),
    Variable("pod", POD, "The pod that the process runs in.", "({e}.process.pod or NO_POD)"),
    Variable("event", EVENT, "The event itself.", "{e}"),
    Variable("network", NETWORK, "Both ends of a socket.", "({e}.network or NO_NETWORK)"),
    Variable("file", FILE, "A file and what was done to it.", "({e}.file or NO_FILE)"),
    Variable("payload", PAYLOAD, "What was recognised in sent data.", "({e}.payload or NO_PAYLOAD)"),
    Variable("operation", OPERATION, "What a module, bpf, privilege, trace, mount, namespace or kill event did.", "({e}.operation or NO_OPERATION)"),
    Variable("exit", EXIT, "How the process ended.", "({e}.exit or NO_EXIT)"),
    Variable("credentials", CREDENTIALS, "Ids and capabilities at exec, from agents that send them.", "({e}.credentials or NO_CREDENTIALS)"),
    Variable("identity", IDENTITY, "The primary machine identity of the process.", "primary({e})"),
    Variable("identities", IDENTITY, "All evidence of machine identities, strongest first.", "evidence({e})", many=64),
    Variable("attribution", ATTRIBUTION, "What is known about the search for identities.", "({e}.process.attribution or NO_IDENTITY)"),
    Variable("args", ARGUMENT, "Arguments of the hook, in order; never in a message.", "{e}.arguments", many=16),
    Variable("peer", PEER, "Who has the address at the other end of the connection now.", "({e}.peer or NO_PEER)"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Function:
    """A function of Keytrail's own; the engine's are in `STANDARD`."""

    name: str
    parameters: tuple[str, ...]
    returns: str
    meaning: str
    known: int = -1
    """Position of the parameter that must be known when the rule is loaded: a constant or a parameter."""


FUNCTIONS: Final[tuple[Function, ...]] = (
    Function("basename", ("string",), "string", "Last component of a path."),
    Function("dirname", ("string",), "string", "A path without its last component; `/` stays."),
    Function("glob", ("string", "string"), "bool", "Whether a path matches a pattern: `*` is any characters but `/`, `**` any characters; `/var/run` and `/run` are the same, and the dated folder of a mounted Secret is left out.", 1),
    Function("cidr", ("string", "string"), "bool", "Whether an address is in a network; an IPv4-mapped IPv6 address counts as IPv4; what is no address is in none.", 1),
    Function("in_cidrs", ("string", "list(string)"), "bool", "The same for any network of a list.", 1),
    Function("entropy", ("string",), "double", "Shannon entropy in bits a character of the first 4,096: words have 2 to 3.5, encoded data 4 and more."),
)  # fmt: skip

STANDARD: Final[tuple[tuple[str, str], ...]] = (
    ("`&&` `||` `!` `? :`", "An error on one side of `&&` and `||` is absorbed when the other decides."),
    ("`==` `!=` `<` `<=` `>` `>=`", "Both sides of one type; no comparison of whole messages."),
    ("`+` `-` `*` `/` `%`", "64-bit integers: overflow and division by zero are errors, division truncates. `+` also joins text and lists."),
    ("`in` `[ ]` `.`", "`x in list`, `key in map`; an index or key that is not there is an error."),
    ("`has(a.b)`", "Whether a field is there: without a mark of its own, whether it differs from its type's default."),
    ("`size(x)` `x.size()`", "Characters of text, items of a list or map."),
    ("`contains` `startsWith` `endsWith`", "On text, case-sensitive."),
    ("`lowerAscii()`", "ASCII letters in lower case."),
    ("`matches(text, pattern)` `text.matches(pattern)`", "RE2, found anywhere in the first 65,536 characters. The pattern must be known when the rule is loaded."),
    ("`all` `exists` `exists_one` `filter` `map`", "Macros over lists and the keys of maps; two levels of nesting at most."),
)  # fmt: skip


def variable(name: str) -> Variable | None:
    """Return the variable of that name."""
    return next((one for one in VARIABLES if one.name == name), None)


def messages() -> tuple[Message, ...]:
    """All types of objects, each once."""
    return tuple({one.message.name: one.message for one in VARIABLES}.values())
