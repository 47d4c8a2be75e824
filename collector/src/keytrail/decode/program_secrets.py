"""Secrets that only a program's own syntax gives away: its one-letter options, its operands, what it is fed.

In: bytes of a command line. Out: spans of the values, as `named_secrets` gives them. A long option has a name and needs
no entry here. Must not know what a provider's keys look like. Next: `redact`.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from keytrail.decode.credential_patterns import compiled, occurs
from keytrail.decode.named_secrets import Span, literal, value

if TYPE_CHECKING:
    import re2

_GAP: Final = rb"""(?:\s+|=|["'],\s*)"""
"""Between an option and its value; the last one in a list, as in a container's spec."""
_ANY: Final = _GAP + rb"?"
_P: Final = rb"-p" + _ANY
_FIELD: Final = rb"[A-Za-z_][\w.-]*="

_COMMANDS: Final[tuple[tuple[str, tuple[bytes, ...]], ...]] = (
    # With a space behind it these ask.
    ("mysql mysqldump mysqladmin mysqlimport mysqlshow mysqlcheck mysqlslap mysqlpump mysqlbinlog", (rb"-p",)),
    ("mariadb mariadb-dump mariadb-admin mariadb-import mariadb-show mariadb-check mariadb-slap", (rb"-p",)),
    ("7z 7za 7zr 7zz rar unrar", (rb"-h?p",)),
    ("sshpass mongo mongosh mongodump mongorestore mongoexport mongoimport mongostat mongotop mongofiles", (_P,)),
    ("mycli cqlsh twine poetry rabbitmqadmin useradd usermod rdesktop elasticsearch-users", (_P,)),
    ("evil-winrm crackmapexec nxc netexec hydra medusa ncftpput ncftpget", (_P,)),
    ("docker podman nerdctl buildah skopeo crane helm oras oc az", (rb"login\s(?:[^;|]*\s)?" + _P,)),
    ("sqlcmd bcp zip unzip ipmitool mosquitto_pub mosquitto_sub mosquitto_rr", (rb"-P" + _ANY,)),
    ("ssh-keygen", (rb"-[NP]" + _ANY,)),
    (
        "redis-cli redis-benchmark valkey-cli valkey-benchmark keydb-cli",
        (rb"-a" + _GAP, rb"(?i:auth)\s+", rb"(?i:auth)\s+\S+\s+", rb"(?i:setuser)\s[^;|]*?\s>"),
    ),
    ("ldapsearch ldapmodify ldapadd ldapdelete ldapwhoami ldapcompare ldapmodrdn ldapexop", (rb"-w" + _ANY,)),
    ("ldappasswd", (rb"-[asw]" + _ANY,)),
    ("snmpwalk snmpget snmpset snmpgetnext snmpbulkget snmpbulkwalk snmptable snmptrap", (rb"-[cAX]" + _ANY,)),
    ("smbclient rpcclient smbget smbcacls smbtree winexe net", (rb"""(?:-U|--user)[\s=]*["']?[^\s%"']+%""",)),
    ("sqlplus sqlldr expdp impdp rman", (rb"""(?:userid=)?["']?[A-Za-z][\w$#]*/""",)),
    ("xfreerdp xfreerdp3 wlfreerdp sdl-freerdp", (rb"/p:",)),
    ("lftp", (rb"""(?:-u|--user)[\s=]*["']?[^\s,"']+,""",)),
    (
        "curl",
        (
            rb"""-[A-Za-z#]*u\s*["']?[^\s:"']+:""",
            rb"""(?:-E\s*|--(?:proxy-)?cert[\s=]+)["']?[^\s:"']+:""",
            rb"""-b\s*["']?[\w.-]+=""",
        ),
    ),
    ("http xh", (rb"-a" + _GAP,)),
    ("openssl", (rb"-[kK]\s+", rb"-hmac\s+", rb"(?:hex)?key:", rb"passwd\s+(?:-\S+\s+)*")),
    ("influx frpc glab", (rb"-t" + _GAP,)),
    ("ss-local ss-server sslocal ssserver ss-tunnel ss-redir", (rb"-k" + _ANY,)),
    ("kubeadm", (rb"--certificate-key" + _GAP,)),
    (
        "kubectl oc",
        (rb"""--from-literal[\s=]+["']?[^\s"'=]+=""", rb"""patch\s+secrets?[\s/][^;|]*\s(?:-p|--patch)[\s=]*"""),
    ),
    ("vault bao", (rb"(?:login|unseal|revoke|renew|lookup|unwrap)\s+(?:-\S+\s+)*", _FIELD)),
    ("fly flyctl", (_FIELD,)),
    ("aws", (rb"put-parameter\s[^;|]*--value" + _GAP,)),
    ("az gh", (rb"secret\s+set\s[^;|]*\s(?:--value|--body|-b)" + _GAP,)),
    ("htpasswd mosquitto_passwd", (rb"-\w*b\w*\s+(?:-\S+\s+)*\S+\s+", rb"-\w*b\w*\s+(?:-\S+\s+)*\S+\s+\S+\s+")),
    ("rabbitmqctl", (rb"(?:add_user|change_password|authenticate_user)\s+\S+\s+",)),
    ("mc", (rb"(?:alias\s+set|host\s+add)\s+\S+\s+\S+\s+\S+\s+",)),
    ("cargo", (rb"login\s+(?:-\S+\s+)*",)),
    ("ngrok", (rb"(?:add-)?authtoken\s+",)),
    ("bw", (rb"unlock\s+", rb"login\s+\S+\s+")),
    ("rclone", (rb"obscure\s+",)),
    ("grafana-cli grafana", (rb"reset-admin-password\s+",)),
    ("nmcli", (rb"password\s+",)),
    ("wpa_passphrase", (rb"\S+\s+",)),
)
"""Programs, and what on their command lines stands before a secret; behind a space, a quote or a comma itself."""

_READER: Final = (
    rb"""(?:(?:sudo\s+)?(?:passwd|chpasswd|smbpasswd|kinit|cryptsetup|su)(?:[\s"')]|$)|sudo\s(?:[^|;&\n]*\s)?-\w*S\b"""
    rb"|\w[^|;&\n]*\s--?(?:password-stdin|passphrase-fd|with-token|stdin\b|pass(?:in)?\s+stdin))"
)
"""A command that is fed a secret."""
_FED: Final = (
    rb"""\b(?:echo|printf)\s+(?:-\w+\s+)*((?:[^|;&\n"']|"[^"|]*"|'[^'|]*')+?)\s*\|\s*""" + _READER,
    _READER + rb"""[^|;&\n]*<<<\s*["']?([^|;&\n"']+)""",
)

_WINDOW: Final = 4 << 10
"""Bytes behind a program's name in which its options are looked for: somebody may name all of them, over and over."""
_COMMAND_END: Final = compiled(rb"[;|]|&&")

_OPTIONS: Final[dict[bytes, list["re2._Regexp[bytes]"]]] = {}
for _names, _options in _COMMANDS:
    for _name in _names.encode().split():
        _OPTIONS.setdefault(_name, []).extend(compiled(rb"""[\s"',]""" + option) for option in _options)
PROGRAMS: Final = frozenset(name.decode() for name in _OPTIONS)
"""Programs whose name must stand before their arguments for these to be understood."""


def _called(names: str) -> bytes:
    return rb"""(?:^|[\s"'`(=/])(""" + b"|".join(names.encode().split()) + rb""")["']?[\s,]"""


_CALLED: Final = _called(" ".join(names for names, _ in _COMMANDS))
_CALL: Final = compiled(_CALLED)
_FEEDINGS: Final = tuple(map(compiled, _FED))

HINT: Final = _CALLED + rb"|<<<|\|\s*(?:sudo|passwd|chpasswd|smbpasswd|kinit|cryptsetup|su)\b|-stdin|-fd\b|with-token"
"""Without regard to case: where this is not found, neither is what follows."""
_COMMAND_LINES: Final = tuple(
    _called(names) + rb"""(?:[^;|]*[\s"',])?(?:""" + b"|".join(options) + rb")" for names, options in _COMMANDS
)
may_find: Final = occurs(compiled(b"|".join((*_FED, *_COMMAND_LINES))))
"""Where this says no, `find` finds nothing. One automaton with that of `redact` would have states for each pair."""


def find(data: bytes) -> Iterator[Span]:
    """Yield the span of each value that a program of the table takes for a secret; spans may overlap."""
    if not may_find(data):
        return
    begun: dict[bytes, int] = {}  # where the next call of a program is: its options are looked for up to there
    judged: set[int] = set()
    for call in reversed([*_CALL.finditer(data)]):
        start = call.end() - 1
        limit = min(begun.get(call[1], len(data)), start + _WINDOW)
        begun[call[1]] = call.start()
        end = _COMMAND_END.search(data, start, limit)
        for option in _OPTIONS[call[1]]:
            for match in option.finditer(data, start, end.start() if end else limit):
                span = None if match.end() in judged else value(data, match.end(), "password-option")
                judged.add(match.end())
                if span is not None:
                    yield span
    for feeding in _FEEDINGS:
        for match in feeding.finditer(data):
            span = literal(data, match.start(1), match.end(1), "fed-password")
            if span is not None:
                yield span
