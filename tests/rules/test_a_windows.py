"""Rules on execution, shells, containers and credentials, on the windows of the recordings that are about them."""

import pytest

from keytrail.detect.rule_tests import run_rule_tests
from keytrail.domain.finding import Finding
from keytrail.domain.rules import DetectionRule, Severity
from rules.report import attributed, expected_kinds, library_findings, shipped_rules

NAMES = frozenset(
    {
        *("account-changed", "account-made-administrator", "archive-sent-out", "cloud-metadata-by-tool"),
        *(
            "cloud-metadata-contact",
            "cloud-metadata-request",
            "command-in-container",
            "command-in-privileged-container",
        ),
        *("command-line-hidden", "container-without-runtime", "credential-brought-into-container"),
        *("credential-files-archived", "credential-in-command-text", "credential-on-command-line", "credential-search"),
        *("environ-of-other-process", "environ-sweep", "environment-listed-in-container", "environment-piped-out"),
        *("environment-sent-out", "exec-from-hidden-folder", "exec-from-memory", "exec-from-temp-folder"),
        *("exec-of-deleted-file", "exec-of-hidden-file", "forged-container-identity", "identity-used-by-network-tool"),
        *("interactive-shell-from-interpreter", "kubernetes-api-by-tool", "kubernetes-api-contact-by-tool"),
        *(
            "miner-command-line",
            "miner-pool-connection",
            "mounted-secret-read",
            "mounted-secret-read-by-tool",
            "network-tool-in-container",
        ),
        *("package-manager-in-container", "pod-cgroup-joined-by-hand", "preload-in-environment", "renamed-interpreter"),
        *("reverse-shell-command", "script-piped-to-shell", "sensitive-file-sent-out", "service-account-token-read"),
        *("setuid-program", "setuid-program-unknown", "shell-as-service-account", "shell-connects-out", "shell-copied"),
        *("shell-fed-by-download", "shell-forced-interactive", "shell-from-interpreter", "shell-from-server"),
        *("shell-in-container", "shell-in-debug-pod", "shell-in-plain-container", "shell-joined-to-network-tool"),
        *("sudo-refused", "sudo-used", "transient-unit-run", "unknown-container-connects-out", "unmapped-credential"),
        "upload-by-command",
    }
)
RECORDINGS = (
    *("policy-library", "kubernetes", "kubernetes-late", "kubernetes-restart", "sensors", "burst"),
    *("seed-demo", "seed-demo-default-flags", "throttle"),
)
STABLE = (
    ("policy-library", "env-closedai-curl", {"unmapped-credential"}),
    ("policy-library", "argv-token-curl", {"credential-on-command-line"}),
    ("policy-library", "shell-from-http-server", {"shell-as-service-account"}),
    ("policy-library", "exec-from-tmp", {"exec-from-temp-folder", "exec-of-hidden-file"}),
    ("policy-library", "memfd-exec", {"exec-from-memory"}),
    ("policy-library", "exec-deleted-binary", {"exec-from-temp-folder"}),
    ("policy-library", "sudo-denied", {"sudo-refused"}),
    ("policy-library", "su", {"sudo-refused"}),
    ("policy-library", "reverse-shell-devtcp", {"reverse-shell-command", "shell-forced-interactive"}),
    (
        "policy-library",
        "reverse-shell-nc",
        {"reverse-shell-command", "shell-forced-interactive", "shell-joined-to-network-tool"},
    ),
    ("kubernetes", "exec-shell", {"shell-in-container", "environment-listed-in-container"}),
    (
        "kubernetes",
        "sa-token-read",
        {
            "shell-in-container",
            "service-account-token-read",
            "kubernetes-api-by-tool",
            "kubernetes-api-contact-by-tool",
        },
    ),
    ("kubernetes", "stolen-key", {"shell-in-container", "credential-brought-into-container"}),
    ("kubernetes", "trainer-evil", {"environment-sent-out", "environment-piped-out"}),
    ("kubernetes", "sidecar-reads-main-env", {"environ-of-other-process", "sensitive-file-sent-out"}),
    ("kubernetes", "stripe-file-other-process", {"shell-in-container", "mounted-secret-read"}),
    ("kubernetes", "checkout-shadow", {"shell-in-container", "sudo-refused"}),
    ("kubernetes", "forged-cgroup", {"forged-container-identity", "pod-cgroup-joined-by-hand"}),
    ("kubernetes", "unknown-container", {"unknown-container-connects-out", "pod-cgroup-joined-by-hand"}),
    ("kubernetes", "privileged-setuid", {"command-in-privileged-container"}),
    ("kubernetes-late", "unknown-container", {"unknown-container-connects-out", "pod-cgroup-joined-by-hand"}),
    ("sensors", "fcap-setcap-python", {"shell-copied"}),
    ("sensors", "environ-read-other", {"environ-of-other-process"}),
    ("sensors", "rename-persist", {"script-piped-to-shell"}),
    ("sensors", "setuid-by-cap", {"renamed-interpreter", "exec-of-hidden-file", "exec-from-temp-folder"}),
    ("sensors", "http-exfil", {"sensitive-file-sent-out", "credential-on-command-line"}),
    ("sensors", "bind-shell-ncat", {"reverse-shell-command"}),
    ("odd-input", "argv-long-one", {"command-line-hidden"}),
)
OFF_BY_DEFAULT = (
    ("policy-library", "env-key-inherited", {"credential-in-command-text"}),
    ("policy-library", "shell-from-python", {"shell-from-interpreter"}),
    ("policy-library", "sudo", {"sudo-used", "setuid-program"}),
    ("policy-library", "su", {"sudo-used", "setuid-program"}),
    ("policy-library", "passwd-suid", {"setuid-program", "account-changed"}),
    ("policy-library", "useradd", {"account-changed"}),
    ("policy-library", "systemd-unit", {"transient-unit-run"}),
    ("policy-library", "library-load", {"preload-in-environment"}),
    ("policy-library", "container-cgroup", {"container-without-runtime"}),
    ("kubernetes", "debug-exec", {"shell-in-debug-pod"}),
    ("kubernetes", "privileged-setuid", {"command-in-container"}),
    ("kubernetes", "stripe-file-other-process", {"upload-by-command"}),
)


def own_rules() -> list[DetectionRule]:
    """The rules that these tests are about."""
    return [rule for rule in shipped_rules() if rule.name in NAMES]


def found_in(recording: str, *, every: bool = False) -> dict[str, list[Finding]]:
    """Findings of the stable rules of these topics, or of every one, by window."""
    found = library_findings(recording, stable=not every).items()
    return {window: [one for one in findings if one.rule.name in NAMES] for window, findings in found}


def test_every_rule_of_these_topics_is_shipped() -> None:
    """No rule that the tables name is missing or refused."""
    assert {rule.name for rule in own_rules()} == NAMES


@pytest.mark.parametrize(("recording", "window", "rules"), STABLE)
def test_default_rules_find_what_happened(recording: str, window: str, rules: set[str]) -> None:
    """Each rule that a window was made for speaks there, with default rules."""
    assert {finding.rule.name for finding in found_in(recording)[window]} >= rules


@pytest.mark.parametrize(("recording", "window", "rules"), OFF_BY_DEFAULT)
def test_quieter_rules_find_what_happened_when_asked_for(
    recording: str,
    window: str,
    rules: set[str],
) -> None:
    """Records of ordinary administration are there when every rule is on, and only then."""
    assert {finding.rule.name for finding in found_in(recording, every=True)[window]} >= rules
    assert not {finding.rule.name for finding in found_in(recording)[window]} & rules


@pytest.mark.parametrize("recording", RECORDINGS)
def test_nothing_above_low_is_said_of_ordinary_work(recording: str) -> None:
    """With every rule on, windows that are benign or ordinary, or are not labelled at all, have nothing above low."""
    kinds = expected_kinds(recording)
    loud = {
        (window, finding.rule.name)
        for window, findings in found_in(recording, every=True).items()
        if kinds.get(window, "") not in {"malicious", "notable"}
        for finding in findings
        if finding.severity.rank > Severity.LOW.rank
    }
    assert not loud


@pytest.mark.parametrize("recording", RECORDINGS)
def test_notable_windows_are_not_shouted_about(recording: str) -> None:
    """With default rules a notable window has medium at most."""
    notable = [window for window, kind in expected_kinds(recording).items() if kind == "notable"]
    worst = [finding.severity.rank for window in notable for finding in found_in(recording)[window]]
    assert max(worst, default=0) <= Severity.MEDIUM.rank


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_rule_proves_itself(name: str) -> None:
    """A rule carries cases that it finds and cases that it leaves alone, and all of them hold."""
    rule = next(rule for rule in own_rules() if rule.name == name)
    assert {test.match for test in rule.spec.tests} == {True, False}
    assert [(result.test, result.message) for result in run_rule_tests([rule]) if not result.passed] == []


def test_a_secret_on_a_command_line_is_in_no_message() -> None:
    """Messages show redacted command lines: a credential of a recording, wherever it stood, is in none."""
    messages = [
        finding.message
        for recording in RECORDINGS
        for findings in found_in(recording, every=True).values()
        for finding in findings
        if finding.event.process.argument_credentials
    ]
    assert messages
    assert not [message for message in messages if "sk-test" in message or "not-a-real" in message]


def test_ones_own_environment_is_told_from_anothers() -> None:
    """Of the recorded reads of /proc/PID/environ the reader's own are known by their pid, and are no finding."""
    reads = [
        event
        for _, event in attributed("sensors")
        if event.details.file and event.details.file.path.endswith("/environ")
    ]
    own = [
        event for event in reads if event.details.operation and event.details.operation.target_pid == event.process.pid
    ]
    others = [
        event for event in reads if event.details.operation and event.details.operation.target_pid != event.process.pid
    ]
    assert len(own) + len(others) == len(reads)
    assert {event.process.name for event in own} == {"python3", "ps"}
    assert {"cat", "grep", "ps"} <= {event.process.name for event in others}
    found = [finding for findings in found_in("sensors").values() for finding in findings]
    about = [finding for finding in found if finding.rule.name == "environ-of-other-process"]
    assert about
    assert not [one for one in about if one.event.process.exec_id in {event.process.exec_id for event in own}]
