"""Thirty conditions such as shipped rules have, on every recorded event: compiled code and CEL engine say the same."""

# ruff: noqa: E501 - tables, read row by row

import itertools
from collections import Counter
from typing import Any

import pytest

from detect.oracle import compiled, engine_answer
from keytrail.decode.credential_patterns import looks_like_credential_name
from keytrail.decode.decoder import Decoder
from keytrail.decode.redact import Redactor
from keytrail.detect import Engine
from keytrail.detect.rule_check import check_rule
from keytrail.domain.drop import Drop
from keytrail.domain.event import Event
from keytrail.domain.finding import Finding
from keytrail.domain.rules import DetectionRule
from keytrail.domain.shape import read
from keytrail.identify.matcher import IdentityMatcher
from keytrail.manifests import load_builtin_identities
from support.recordings import STREAMS, messages
from support.variants import with_long

PARAMETERS: dict[str, Any] = {
    "shells": ["sh", "bash", "zsh", "ash", "dash", "busybox"],
    "places": ["/tmp/**", "/dev/shm/**", "/var/tmp/**"],
    "local": ["127.0.0.1/32", "::1/128"],
    "cluster": ["10.244.0.0/16", "10.96.0.0/12"],
    "interpreters": ["python*", "perl*", "ruby*", "node*"],
    "miners": ["(?i)stratum[+]tcp", "(?i)--donate-level", "xmrig"],
}
CONDITIONS: dict[str, tuple[list[str], str]] = {
    "exec-tmp": (["exec"], "params.places.exists(p, glob(process.binary, p))"),
    "exec-hidden": (["exec"], 'process.binary.matches("/[.][^./][^/]*/")'),
    "exec-memfd": (["exec"], 'process.binary.startsWith("/dev/fd/") || process.binary.startsWith("/proc/self/fd/") || (has(credentials.inode_links) && credentials.inode_links == 0)'),
    "sudo": (["exec"], 'process.name in ["sudo", "su", "pkexec", "doas"]'),
    "suid": (["exec"], '"setuid" in credentials.raised || "setgid" in credentials.raised'),
    "shell-in-container": (["exec"], "process.name in params.shells && has(pod.name) && !process.in_init_tree"),
    "shell-by-service": (["exec"], 'process.name in params.shells && parent.name in ["nginx", "httpd", "java", "postgres", "redis-server"]'),
    "shell-by-interpreter": (["exec"], "process.name in params.shells && params.interpreters.exists(p, glob(parent.name, p))"),
    "reverse-shell": (["exec"], 'process.name in ["nc", "ncat", "socat"] && process.arguments.matches("(^| )(-e|-c|EXEC:|SYSTEM:)")'),
    "python-reverse": (["exec"], 'process.name.startsWith("python") && process.arguments.contains("socket") && process.arguments.contains("dup2")'),
    "decoded-script": (["exec"], 'process.name in params.shells && process.arguments.matches("base64 +(-d|--decode)[^|]*[|] *(ba|z)?sh")'),
    "download-to-shell": (["exec"], 'process.name in params.shells && process.arguments.matches("(curl|wget) [^|]*[|] *(ba|z)?sh")'),
    "credential-argv": (["exec"], "size(process.argument_credentials) > 0"),
    "unmapped": (["exec"], "has(identity.id) && !identity.mapped"),
    "hidden-payload": (["exec"], "process.truncated"),
    "package-manager": (["exec"], 'has(pod.name) && process.name in ["apt", "apt-get", "apk", "yum", "dnf", "pip", "npm"]'),
    "miner": (["exec"], "params.miners.exists(p, process.arguments.matches(p))"),
    "nsenter": (["exec"], 'process.name == "nsenter" && process.arguments.contains("-t 1")'),
    "history": (["exec"], 'process.arguments.matches("(rm|shred|truncate|cat /dev/null).*[.](bash|zsh)_history")'),
    "archive-deep": (["exec"], 'process.name in ["tar", "zip", "7z"] && ancestors.exists(a, a.name in params.shells)'),
    "egress": (["connect"], "!in_cidrs(network.peer_address, params.local) && !in_cidrs(network.peer_address, params.cluster)"),
    "identity-egress": (["connect"], 'identity.provider == "openai" && network.peer_port != 443'),
    "metadata": (["connect"], 'network.peer_address == "169.254.169.254" && has(pod.name)'),
    "runtime-socket": (["connect"], 'network.family == "AF_UNIX" && network.peer_address.matches("/(docker|containerd/containerd|crio/crio)[.]sock$")'),
    "shadow": (["file"], 'file.path in ["/etc/shadow", "/etc/gshadow"] && !(process.name in ["sshd", "su", "sudo", "passwd"])'),
    "persistence": (["file"], 'file.access in ["write", "rename"] && (glob(file.path, "/etc/cron*/**") || file.path.endsWith("/authorized_keys") || file.target == "/etc/ld.so.preload")'),
    "root": (["privilege"], "event.returned == 0 && has(event.returned) && size(operation.ids) > 0 && operation.ids[0] == 0 && process.uid != 0"),
    "module": (["module"], 'operation.name == "load" && !(process.name in ["modprobe", "systemd-udevd"])'),
    "library": (["library"], 'params.places.exists(p, glob(file.path, p)) || !file.path.startsWith("/")'),
    "argument": (["hook", "bpf", "trace", "mount", "send"], 'args.exists(a, a.index == 0 && a.text.size() > 3) && args[1].text != "x"'),
}  # fmt: skip


def rule(name: str, kinds: list[str], condition: str, **more: Any) -> DetectionRule:
    """A rule around a condition."""
    spec = {
        "title": name,
        "description": name,
        "severity": "medium",
        "maturity": "stable",
        "events": kinds,
        "parameters": PARAMETERS,
        "condition": condition,
        "message": "{process.name} of {parent.name}",
    }
    data = {"metadata": {"name": name}, "spec": {**spec, **more}}
    made, faults = read(DetectionRule, data)
    assert made is not None, faults
    return made


RULES = [rule(name, *parts) for name, parts in CONDITIONS.items()]


def events(name: str) -> list[Event]:
    """A recording's events, as the pipeline hands them to rules."""
    decoder = Decoder(Redactor().redact)
    matcher = IdentityMatcher([], load_builtin_identities(), looks_like_credential=looks_like_credential_name)
    found = []
    for raw in messages(name):
        event = decoder.decode(raw)
        if not isinstance(event, Drop):
            if event.process.attribution is None:
                event.process.attribution = matcher.attribute(event.process)
            found.append(event)
    return found


def test_rules_are_accepted() -> None:
    """All thirty are in force, and need no other kinds than they name."""
    engine = Engine.load(RULES)
    assert engine.refused == {}
    assert len(engine.rules) == 30
    assert {str(kind) for kind in engine.kinds} == set(itertools.chain(*(kinds for kinds, _ in CONDITIONS.values())))


@pytest.mark.parametrize(
    "name",
    ["odd-input", *(pytest.param(one, marks=pytest.mark.long) for one in ("policy-library", "kubernetes", "sensors"))],
)
def test_engine_and_code_agree_on_recorded_events(name: str) -> None:
    """The same answer for each condition and event of its kinds; of equal hooks the first of every few is asked."""
    checked = [check_rule(one) for one in RULES]
    conditions = [(one.steps[-1], compiled(one.steps[-1].condition)) for one in checked]
    seen: Counter[tuple[str, str, str]] = Counter()
    asked = 0
    for event in events(name):
        key = (event.kind, event.function, event.process.binary)
        seen[key] += 1
        if seen[key] > 3:
            continue
        for step, answer in conditions:
            if event.kind in step.kinds:
                asked += 1
                assert answer(event) == engine_answer(step.condition, event), (step.condition.condition.text, event)
    assert asked > 500


@pytest.mark.parametrize("name", with_long(STREAMS, "event-flood"))
def test_rules_run_over_every_recording(name: str) -> None:
    """The code of all rules gives for each event what each condition alone gives, and findings keep no event alive."""
    engine = Engine.load(
        [*RULES, rule("everything", ["exec"], "true", suppress={"by": ["process.binary"], "window": "1m"})]
    )
    found: list[Finding] = []
    for event in events(name):
        found += engine.detect(event)
    found += engine.flush()
    assert [finding for finding in found if finding.rule.name == "everything"]
    assert all(finding.event.arguments == () for finding in found)
    assert engine.failures.keys() <= {"argument"}
    suppressed = sum(finding.suppressed for finding in found)
    assert suppressed == sum(engine.suppressed.values()) + sum(engine.over_budget.values())
