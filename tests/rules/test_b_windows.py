"""What the rules on privileges, the kernel, files and the network say of the recordings, window by window."""

from functools import cache

import pytest

from keytrail.detect.rule_tests import run_rule_tests
from keytrail.domain.finding import Finding
from keytrail.domain.rules import DetectionRule, Severity
from rules.report import expected_kinds, library_findings, shipped_rules, windows_of

MALICIOUS = [
    ("policy-library", "modprobe", {"kernel-module-loaded-by-program", "kernel-module-removed"}),
    ("policy-library", "bpftool", {"bpf-program-loaded"}),
    ("policy-library", "read-shadow", {"shadow-file-read"}),
    ("policy-library", "chmod", {"set-user-id-bit-set"}),
    ("policy-library", "library-load", {"library-from-unusual-place"}),
    ("policy-library", "ptrace", {"process-attached"}),
    ("policy-library", "persistence", {"authorized-keys-written"}),
    ("sensors", "fcap-setcap-python", {"file-capabilities-set"}),
    ("sensors", "fcap-python-setxattr", {"file-capabilities-set"}),
    ("sensors", "sock-docker-curl", {"runtime-socket-used"}),
    ("sensors", "sock-containerd-python", {"runtime-socket-used"}),
    ("sensors", "dns-tunnel-python", {"dns-tunnel"}),
    ("sensors", "mem-read-other", {"process-memory-accessed"}),
    ("sensors", "mem-vm-readv", {"process-memory-accessed"}),
    ("sensors", "log-wipe", {"log-cleared"}),
    ("sensors", "history-wipe", {"history-cleared"}),
    ("sensors", "timestomp", {"time-stamps-changed"}),
    ("sensors", "rename-persist", {"cron-written", "preload-written"}),
    ("sensors", "link-shadow", {"link-to-sensitive-file"}),
    ("sensors", "module-insmod-tmp", {"kernel-module-from-unusual-place"}),
    ("sensors", "module-init-mem", {"kernel-module-from-memory"}),
    ("sensors", "setuid-fail", {"set-id-root-refused"}),
    ("sensors", "setuid-by-cap", {"root-by-set-id"}),
    ("sensors", "mount-host-disk", {"host-disk-mounted", "host-namespaces-entered"}),
    ("sensors", "prctl-kworker", {"kernel-thread-name"}),
    ("sensors", "tls-c2-sni", {"tls-to-unusual-port"}),
    ("sensors", "http-exfil", {"credential-in-plain-http"}),
    ("sensors", "bind-shell-ncat", {"bind-shell-listener", "network-tool-listener"}),
    ("sensors", "persist-cron-tee", {"cron-written"}),
    ("sensors", "persist-keys-sudoers", {"authorized-keys-written", "sudoers-written"}),
    ("sensors", "persist-bashrc-profile-preload", {"preload-written", "shell-profile-written"}),
    ("sensors", "persist-unit", {"systemd-unit-written"}),
    ("kubernetes", "trainer-evil", {"credential-in-plain-http"}),
    ("kubernetes", "sa-token-read", {"credential-file-then-connection"}),
    ("kubernetes", "stripe-file-other-process", {"credential-in-plain-http", "credential-file-then-connection"}),
    ("kubernetes", "checkout-shadow", {"shadow-file-read"}),
    ("kubernetes", "privileged-setuid", {"set-user-id-bit-set"}),
]

NOTABLE = [
    ("setuid-root-syscall", {"set-id-root-by-root", "set-id-root-refused"}),
    ("ssh-localhost", {"sshd-session-opened", "sshd-session-closed"}),
    ("connect-unreachable", {"egress-outside-cluster"}),
    ("tcp-listen", {"listener-opened"}),
    ("userns", {"user-namespace-by-user"}),
    ("containerish", {"namespaces-unshared"}),
    ("capset", {"capabilities-raised"}),
    ("canary-kill", {"enforcement-acted"}),
    ("mount", {"mount-by-hand"}),
    ("systemd-unit", {"service-made-by-hand"}),
]

SILENT_HERE = {
    "account-files-written", "boot-script-written", "bpf-object-made", "browser-store-read",
    "credential-file-read", "cron-table-changed", "debugger-attached", "dns-many-names", "git-hook-written",
    "host-sweep", "interpreter-to-unusual-port", "kernel-helper-written", "kernel-module-loaded",
    "kernel-module-requested", "listener-from-temporary-folder", "made-executable-in-temporary-folder",
    "mount-by-interpreter", "perf-event-opened", "port-scan", "private-key-read", "root-folder-bound",
    "root-pivoted", "sensitive-path-covered", "set-group-id-bit-set", "system-program-replaced", "tls-by-hand",
}  # fmt: skip
"""Rules of these topics that the two tables do not name: for what no recording has, or records beside a finding."""

TOPICS = SILENT_HERE.union(*(rules for *_, rules in [*MALICIOUS, *NOTABLE]))
RECORDINGS = ("burst", "kubernetes", "kubernetes-late", "odd-input", "policy-library", "seed-demo", "sensors")


@cache
def of_topics() -> tuple[DetectionRule, ...]:
    """The rules under test; fails when one was renamed."""
    found = tuple(rule for rule in shipped_rules() if rule.name in TOPICS)
    assert {rule.name for rule in found} == TOPICS
    return found


def found_in(recording: str, *, every: bool = False) -> dict[str, list[Finding]]:
    """Findings of the stable rules of these topics, or of every one, by window."""
    found = library_findings(recording, stable=not every).items()
    return {window: [one for one in findings if one.rule.name in TOPICS] for window, findings in found}


@pytest.mark.parametrize(("recording", "window", "rules"), MALICIOUS)
def test_malicious_window_is_found_by_default(recording: str, window: str, rules: set[str]) -> None:
    """Each rule that a malicious window is made for speaks there, at medium or above, among the stable ones."""
    found = found_in(recording)[window]
    assert rules <= {finding.rule.name for finding in found if finding.severity.rank >= Severity.MEDIUM.rank}


@pytest.mark.parametrize(("window", "rules"), NOTABLE)
def test_notable_window_is_found_with_every_rule(window: str, rules: set[str]) -> None:
    """Each rule that a notable window is made for speaks with all on, and the stable ones say medium at most."""
    every = found_in("policy-library", every=True)[window]
    stable = found_in("policy-library")[window]
    assert rules <= {finding.rule.name for finding in every}
    assert all(finding.severity.rank <= Severity.MEDIUM.rank for finding in stable)


@pytest.mark.parametrize("recording", RECORDINGS)
def test_benign_windows_are_quiet_even_with_every_rule(recording: str) -> None:
    """In no benign or ordinary window, nor between windows, does a rule of any maturity say more than low."""
    kinds = expected_kinds(recording)
    loud = {name for name, _, _ in windows_of(recording) if kinds.get(name) in {"malicious", "notable"}}
    for window, findings in found_in(recording, every=True).items():
        too_much = [
            (finding.rule.name, finding.message) for finding in findings if finding.severity.rank > Severity.LOW.rank
        ]
        assert window in loud or not too_much, (window, too_much)


def test_own_tests_of_the_rules_hold() -> None:
    """Every rule has a case that it finds and one that it leaves alone, and all of its cases hold."""
    failed = [(one.rule, one.test, one.message) for one in run_rule_tests(of_topics()) if not one.passed]
    assert not failed
    one_sided = {rule.name for rule in of_topics() if len({test.match for test in rule.spec.tests}) < 2}
    assert one_sided <= {"dns-many-names"}  # a hundred names would be no documentation


def test_rules_do_not_know_the_recordings() -> None:
    """No rule holds a word of the recordings: a rule that does would find the recording and nothing else."""
    words = ("tvm", "127.0.66", "127.0.10", "evil.example", "alice", "bob")
    for rule in of_topics():
        spec = rule.spec
        texts = [
            spec.condition,
            spec.message,
            *(one.condition for one in spec.exceptions),
            *map(str, spec.parameters.values()),
        ]
        assert not [word for word in words for text in texts if word in text], rule.name
