"""Redaction of single texts: what goes, what stays, what the finding is called."""

from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keytrail.decode import redact as redaction
from keytrail.decode.credential_patterns import SHAPES, compiled, occurs
from keytrail.decode.redact import CUT, LIMIT, MARK, Redactor, text_credentials

REDACTOR = Redactor()

REDACTED = [
    ("--password hunter2 --foo", "--password [redacted] --foo", "password-option"),
    ("--password='a b' c", "--password='[redacted]' c", "password-option"),
    ('["--password", "hunter2", "x"]', '["--password", "[redacted]", "x"]', "password-option"),
    ("-passin pass:hunter2 -in x.pem", "-passin [redacted] -in x.pem", "password-option"),
    ("-u bob:secret http://x", "-u bob:[redacted] http://x", "user-option"),
    ('-c "PGPASSWORD=hunter2 psql -h db"', '-c "PGPASSWORD=[redacted] psql -h db"', "named-value"),
    ('run -e "DB_PASSWORD=two words" img', 'run -e "DB_PASSWORD=[redacted]" img', "named-value"),
    ("X_TOKEN=abc; ls", "X_TOKEN=[redacted]; ls", "named-value"),
    ('{"api_key": "x y", "m": "q"}', '{"api_key": "[redacted]", "m": "q"}', "named-value"),
    ('{\\"api_key\\": \\"xyz\\", \\"b\\": 1}', '{\\"api_key\\": \\"[redacted]\\", \\"b\\": 1}', "named-value"),
    ("password: x", "password: [redacted]", "named-value"),
    ("p%61ssword%3Dhunter2", "p%61ssword%3D[redacted]", "named-value"),
    ("--from-literal=password=hunter2 --yes", "--from-literal=password=[redacted] --yes", "named-value"),
    ('-H "X-Api-Key: abc" -o x', '-H "X-Api-Key: [redacted]" -o x', "named-value"),
    ("Server=db;Password=a/b+c==;Encrypt=true", "Server=db;Password=[redacted];Encrypt=true", "named-value"),
    ('-H "Authorization: Bearer abc" u', '-H "Authorization: Bearer [redacted]" u', "authorization-header"),
    ('-c "x -H "Authorization: Basic eDp5" u"', f'-c "x -H "Authorization: Basic {MARK}" u"', "authorization-header"),
    ('-H "Authorization: Unheard-Of abc def" u', '-H "Authorization: [redacted]" u', "authorization-header"),
    ("GET /\r\nCookie: a=b; c=d\r\nHost: x\r\n", "GET /\r\nCookie: [redacted]\r\nHost: x\r\n", "cookie-header"),
    ("https://user:pass@host/p", "https://[redacted]@host/p", "url-userinfo"),
    ("https://token:x@host/p", "https://[redacted]@host/p", "url-userinfo"),
    ("postgres://u:p/a@ss@db/x", "postgres://[redacted]@db/x", "url-userinfo"),
    ("user:pa55wd@tcp(db:3306)/x", "[redacted]@tcp(db:3306)/x", "url-userinfo"),
    ("http://h/?sig=abc%2Fdef&x=2", "http://h/?sig=[redacted]&x=2", "url-parameter"),
    ("jdbc:oracle:thin:scott/tiger@db:1521:x", "jdbc:oracle:thin:scott/[redacted]@db:1521:x", "url-userinfo"),
    ("password\t\t\t\t\t=\t\t\t\t\tabc", "password\t\t\t\t\t=\t\t\t\t\t[redacted]", "named-value"),
    ('"pwd": "abc"', '"pwd": "[redacted]"', "named-value"),
    ("<a><password>x y</password></a>", "<a><password>[redacted]</password></a>", "named-value"),
    ("x.setPassword('abc')", "x.setPassword('[redacted]')", "named-value"),
    ('{"name":"DB_PASSWORD","value":"x"}', '{"name":"DB_PASSWORD","value":"[redacted]"}', "named-value"),
    ('{"value":"x","name":"DB_PASSWORD"}', '{"value":"[redacted]","name":"DB_PASSWORD"}', "named-value"),
    ('<add key="ApiKey" value="x" />', '<add key="ApiKey" value="[redacted]" />', "named-value"),
    ("password: |\n  a\n  b\nc: d", "password: |\n  [redacted]\nc: d", "named-value"),
    ('"passwords": ["a", "b"], "c": 1', '"passwords": [redacted], "c": 1', "named-value"),
    ("config set db.password abc", "config set db.password [redacted]", "named-value"),
    ("--token-file x --token abc", "--token-file x --token [redacted]", "password-option"),
    ("--pass\u200bword\u00a0abc -x", "--pass\u200bword\u00a0[redacted] -x", "password-option"),
    ("\N{EM DASH}password abc", "\N{EM DASH}password [redacted]", "password-option"),
    ("run &#115;&#x6b;-abcdefghijklmnopqrstuv", "run [redacted]", "openai-key"),
    (r"printf '\163\153-abcdefghijklmnopqrstuv'", "printf '[redacted]'", "openai-key"),
    ("usermod -p $6$abcdefgh$ijklmnopqrstuvwxyz bob", "usermod -p [redacted] bob", "password-hash"),
    ("echo 'abc' | sudo -S id", "echo [redacted] | sudo -S id", "fed-password"),
    ("chpasswd <<< 'bob:abc'", "chpasswd <<< '[redacted]'", "fed-password"),
    ("CREATE USER x IDENTIFIED BY 'hunter2'", "CREATE USER x IDENTIFIED BY '[redacted]'", "password-statement"),
    ('"sk-abcdefgh""ijklmnopqrstuv"', '"[redacted]"', "openai-key"),
    ("echo AKIAABCDEFGHIJKLMNOP", "echo [redacted]", "aws-access-key"),
    ("echo QUtJQUFCQ0RFRkdISUpLTE1OT1A= x", "echo [redacted] x", "aws-access-key"),
    ("run Zq8vK2mXw9RtY4bN7cLd5fGh now", "run [redacted] now", "high-entropy"),
]  # fmt: skip

KEPT = [
    "login --username bob --password-stdin https://example.org",
    "get secret db-pass -n prod -o jsonpath={.data.password}",
    "--token-file /etc/app/token --max-tokens 512 --secret-name db --no-password --token-ttl 1h",
    "--password-file=/run/secrets/x --private-key=/etc/ssl/private/key.pem",
    '-c "curl -H "Authorization: Bearer $T" https://x; PASSWORD=${DB_PASSWORD} TOKEN=$(cat /run/token)"',
    "-a -o [A-Z_]*PASSWORD=[^[:cntrl:]]* /proc/9/environ",
    "git checkout 9fceb02d0ae598e95dc970b74767f19372d61af8",
    "run app@sha256:9fceb02d0ae598e95dc970b74767f19372d61af89fceb02d0ae598e95dc970b7",
    "app:1.25@sha256:9fceb02d0ae598e95dc970b74767f19372d61af89fceb02d0ae598e95dc970b7",
    "/var/lib/kubelet/pods/0fd7b9a1-8c0f-4a1c-a9a0-111122223333/volumes/x/..2026_11_22_10_11_12.123456",
    "/sys/fs/cgroup/system.slice/cri-containerd-49057d0e58d56e7d2db302f8101cde1dd714bc5774bbb971012b492f2a83d9af.scope",
    "/nix/store/0c2lhqgw2w6zq2jvvq3kcl2q2yj7v1wd-bash-5.2-p15/bin/bash",
    "/tmp/systemd-private-0fd7b9a18c0f4a1ca9a0111122223333-systemd-logind.service-AbCdEf",
    "BOOT_IMAGE=/vmlinuz-6.1.0-50-cloud-amd64 root=UUID=0fd7b9a1-8c0f-4a1c-a9a0-111122223333 ro",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx0Zk4f9b3Qm2vT7sLrWn8yUcHdGe5aPoXiRtBvNqKs user@host",
    "echo ZGF0YTogaGVsbG8gd29ybGQsIHRoaXMgaXMgZmluZQ== | base64 -d",
    "-o StrictHostKeyChecking=no -o HostKeyAlgorithms=+ssh-rsa root@localhost uptime",
    "http://proxy.example:3128/@scope/package",
    "run -u 1000:1000 image",
    "PWD=/root OLDPWD=/tmp primary_key=id",
    "logs pod/web-7d4b9c8f6d-x2x8p -c app",
    "--auth --keyFile x --client-key=tls.key --set auth.existingSecret=db-creds",
    "password:\n  valueFrom:\n    secretKeyRef:\n      name: db\n",
    "config set-credentials bob --embed-certs",
    "-c \"x = read_secret('prod/db'); git config credential.helper store\"",
    "echo a | su-exec app cat",
    "/home/u/résumé \N{EN DASH} final.pdf",
    "org.springframework.boot.loader.launch.JarLauncher --spring.config.location=classpath:/application.yml",
    "NOPASSWD: ALL",
    "",
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected", "name"), REDACTED)
def test_a_secret_goes_and_what_helps_the_reader_stays(text: str, expected: str, name: str) -> None:
    """Only the value is replaced: option, header, host and user name stay, and the finding has its name."""
    redacted, names = REDACTOR.redact(text)
    assert redacted == expected
    assert name in names


@pytest.mark.parametrize("text", KEPT)
def test_text_without_a_secret_stays(text: str) -> None:
    """Names of secrets, references to them, digests, ids, public keys and paths are no credentials."""
    assert REDACTOR.redact(text) == (text, ())


@pytest.mark.parametrize("end", ["-----END RSA PRIVATE KEY-----", ""])
def test_a_private_key_goes_between_its_marks(end: str) -> None:
    """The marks say what it was; without an end mark everything behind the first one goes."""
    begin = "-----BEGIN RSA PRIVATE KEY-----"
    assert REDACTOR.redact(f"{begin}\nMIIabc\ndef\n{end}") == (f"{begin}{MARK}{end}", ("private-key",))


@pytest.mark.parametrize(
    ("program", "arguments", "expected"),
    [
        ("mysql", "-u root -phunter2 db", "-u root -p[redacted] db"),
        ("sshpass", "-p hunter2 ssh root@h", "-p [redacted] ssh root@h"),
        ("redis-cli", "-h x -a hunter2 ping", "-h x -a [redacted] ping"),
        ("mkdir", "-p hunter2", "-p hunter2"),
        ("docker", "run -p 80:80 app", "run -p 80:80 app"),
        ("docker", "login -u bob -p hunter2 r", "login -u bob -p [redacted] r"),
        ("ssh-keygen", "-p -P old -N 'new one'", "-p -P [redacted] -N '[redacted]'"),
        (
            "kubectl",
            "create secret generic x --from-literal a=hunter2",
            "create secret generic x --from-literal a=[redacted]",
        ),
        ("vault", "kv put secret/x a=hunter2 b=hunter3", "kv put secret/x a=[redacted] b=[redacted]"),
        ("curl", "-sSu bob:hunter2 https://x", "-sSu bob:[redacted] https://x"),
        ("sqlplus", "-s scott/tiger@db", "-s scott/[redacted]"),
        ("htpasswd", "-nbB bob hunter2", "-nbB bob [redacted]"),
        ("sh", """-c '["redis-cli", "-a", "hunter2"]'""", """-c '["redis-cli", "-a", "[redacted]"]'"""),
        ("sh", '-c "zip -P hunter2 x; mkdir -p y"', '-c "zip -P [redacted] x; mkdir -p y"'),
        ("sh", '-c "sshpass -p hunter2 ssh h"', '-c "sshpass -p [redacted] ssh h"'),
    ],
)
def test_the_program_decides_what_a_short_option_means(program: str, arguments: str, expected: str) -> None:
    """-p is a password for mysql and sshpass, and a plain option for everybody else."""
    assert REDACTOR.redact(arguments, program)[0] == expected


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.characters(), max_size=300))
def test_no_text_makes_it_fail_and_twice_is_once(text: str) -> None:
    """Any text, with surrogates, controls and U+FFFD, is redacted without an error, and again without a change."""
    once = REDACTOR.redact(text)[0]
    assert REDACTOR.redact(once)[0] == once


FRAGMENTS = st.sampled_from(
    [*(text for text, _, _ in REDACTED), MARK, "--token", "=", ":", '"', "'", "\\", " ", "%22", "@", "//", "$", "-p"]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(FRAGMENTS, max_size=6).map("".join))
def test_twice_is_once_for_secrets_run_into_each_other(text: str) -> None:
    """However secrets, quotes and marks are run together, redacting the result changes nothing."""
    once = REDACTOR.redact(text)[0]
    assert REDACTOR.redact(once)[0] == once


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.lists(FRAGMENTS | st.text(max_size=30), max_size=6).map("".join), st.text(max_size=80)))
def test_what_the_first_look_passes_over_holds_nothing(text: str) -> None:
    """Text that is given back after one look is text in which the whole search finds nothing."""
    data = text.encode(errors="replace")
    if not redaction._may_hold_something(data):
        assert list(redaction._find(data, 0)) == []


@settings(max_examples=80, deadline=None)
@given(st.lists(FRAGMENTS | st.sampled_from(["ghp_" + "a1" * 20, "\0", "\ufffd"]), max_size=4).map("".join))
def test_a_look_says_what_a_search_says(text: str) -> None:
    """Asking RE2 only whether there is a match gives the answer of the search that also says where."""
    for _, shape in SHAPES[:20]:
        expression = compiled(shape)
        assert occurs(expression)(text.encode()) == (expression.search(text.encode()) is not None)


@pytest.mark.parametrize(
    "filler",
    ["x", "a ", "\ufffd", '"', "%41", "-p ", "token=", "A1b2", "https://", "://@:", "eyJ", '\\"', "vault a=b "],
)
def test_a_megabyte_is_cut_not_passed_through(filler: str) -> None:
    """Text over the limit ends with the mark, holds no part of a secret behind the limit, and takes linear time."""
    text = (filler * (1 << 20))[: 1 << 20] + " --password hunter2"
    before = process_time()
    redacted, _ = REDACTOR.redact(text)
    assert process_time() - before < 20  # seconds of a busy machine; a backtracking engine would need days
    assert "hunter2" not in redacted
    assert redacted == MARK or redacted.endswith(CUT)
    assert REDACTOR.redact(redacted)[0] == redacted


def test_a_secret_across_the_limit_is_not_halved() -> None:
    """A key that begins before the limit and ends behind it goes whole: half a key has no shape to know it by."""
    secret = "ghp_" + "a1B2c3D4e5F6" * 3
    for offset in range(1, len(secret)):
        redacted, _ = REDACTOR.redact("x " * ((LIMIT - offset) // 2) + secret + " tail")
        assert secret[:6] not in redacted


def test_secrets_in_long_noise_are_found() -> None:
    """The automata do not give up on text of the maximal length that they never saw."""
    noise = " ".join(f"word{index * 7919 % 100_003:x}" for index in range(2_400))
    redacted, names = REDACTOR.redact(f"{noise} npm_{'aB3' * 12} {noise[:5_000]}")
    assert names == ("npm-token",)
    assert "aB3aB3" not in redacted


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer abc\r\n", "authorization-header"),
        (b"GET / HTTP/1.1\r\nx-api-key: sk-ant-api03-abcdefghijklmnopqrstuvwxyz\r\n", "anthropic-key"),
        (b"GET /?access_token=abc HTTP/1.1\r\n", "named-value"),
        (b"GET / HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\r\n", ""),
        (b"\x16\x03\x01" + bytes(range(256)) * 8, ""),
        (b"", ""),
    ],
)
def test_a_payload_is_named_after_its_credential(payload: bytes, expected: str) -> None:
    """An HTTP head with a credential has its name; TLS records and plain heads have none."""
    assert text_credentials(payload) == expected
