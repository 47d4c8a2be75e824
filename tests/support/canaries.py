"""Generated credentials of real shapes, in the text in which people use them.

`generate` gives as many as a test asks for, the same for the same seed. A canary that is found anywhere in what left
the process, in any of its `forms`, was not redacted.
"""

import base64
import string
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from urllib.parse import quote

LOWER, UPPER, DIGITS = string.ascii_lowercase, string.ascii_uppercase, string.digits
ALNUM = string.ascii_letters + DIGITS
HEX = DIGITS + "abcdef"
BASE64 = ALNUM + "+/"
BASE64URL = ALNUM + "-_"
PASSWORD = ALNUM + "!#%^*+~._-"


@dataclass(frozen=True, slots=True)
class Canary:
    """One credential and the command line, header or document that carries it."""

    value: str
    text: str
    shape: str
    """Whose credential it is."""
    wrapping: str
    """How the text carries it: `plain`, `base64`, `url-query`, ..."""

    def forms(self) -> tuple[str, ...]:
        """Give the strings that betray the value: itself, URL-encoded, hexadecimal, and base64 at each alignment."""
        raw = self.value.encode()
        found = [self.value, quote(self.value, safe=""), raw.hex(), raw.hex().upper()]
        for lead in range(3):
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                text = encode(b"\0" * lead + raw).decode().rstrip("=")
                found.append(
                    text[-(-lead * 4 // 3) : len(text) - 1]
                )  # the first and last digits hold neighbours' bits too
        return tuple(dict.fromkeys(form for form in found if len(form) >= 8))


def _of(prefix: str, alphabet: str, length: int, suffix: str = "") -> Callable[[Random], str]:
    return lambda random: prefix + "".join(random.choices(alphabet, k=length)) + suffix


def _joined(separator: str, *parts: Callable[[Random], str]) -> Callable[[Random], str]:
    return lambda random: separator.join(part(random) for part in parts)


def _jwt(random: Random) -> str:
    head = base64.urlsafe_b64encode(b'{"alg":"RS256","typ":"JWT"}').decode().rstrip("=")
    body = base64.urlsafe_b64encode(b'{"sub":"%d"}' % random.getrandbits(60)).decode().rstrip("=")
    return f"{head}.{body}.{_of('', BASE64URL, 86)(random)}"


def _uuid(random: Random) -> str:
    return _joined("-", *(_of("", HEX, length) for length in (8, 4, 4, 4, 12)))(random)


RECOGNISABLE: dict[str, Callable[[Random], str]] = {
    "aws-access-key-id": _of("AKIA", UPPER + "234567", 16),
    "aws-temporary-key-id": _of("ASIA", UPPER + "234567", 16),
    "aws-secret-key": _of("", BASE64, 40),
    "aws-session-token": _of("IQoJb3JpZ2luX2Vj", BASE64, 200),
    "github-personal": _of("ghp_", ALNUM, 36),
    "github-oauth": _of("gho_", ALNUM, 36),
    "github-server": _of("ghs_", ALNUM, 36),
    "github-fine-grained": _joined("_", _of("github_pat_11", UPPER + DIGITS, 20), _of("", ALNUM, 59)),
    "gitlab-personal": _of("glpat-", BASE64URL, 20),
    "gitlab-runner": _of("glrt-", BASE64URL, 20),
    "bitbucket": _of("ATBB", ALNUM, 32),
    "atlassian": _of("ATATT3xFfGF0", BASE64URL, 170),
    "slack-bot": _joined("-", _of("xoxb-", DIGITS, 12), _of("", DIGITS, 13), _of("", ALNUM, 24)),
    "slack-app": _joined("-", _of("xapp-1-A", UPPER + DIGITS, 10), _of("", DIGITS, 13), _of("", HEX, 64)),
    "openai": _of("sk-", ALNUM, 48),
    "openai-project": _of("sk-proj-", BASE64URL, 120),
    "anthropic": _of("sk-ant-api03-", BASE64URL, 95),
    "openrouter": _of("sk-or-v1-", HEX, 64),
    "huggingface": _of("hf_", ALNUM, 34),
    "groq": _of("gsk_", ALNUM, 52),
    "replicate": _of("r8_", ALNUM, 37),
    "pinecone": _of("pcsk_", ALNUM + "_", 70),
    "mistral": _of("", ALNUM, 32),
    "cohere": _of("", ALNUM, 40),
    "stripe-live": _of("sk_live_", ALNUM, 24),
    "stripe-restricted": _of("rk_live_", ALNUM, 99),
    "stripe-webhook": _of("whsec_", ALNUM, 32),
    "google-api": _of("AIza", BASE64URL, 35),
    "google-oauth": _of("ya29.a0", BASE64URL, 160),
    "google-client-secret": _of("GOCSPX-", BASE64URL, 28),
    "azure-storage": _of("", BASE64, 86, "=="),
    "azure-client-secret": _joined("8Q~", _of("", ALNUM, 3), _of("", ALNUM + "~_.-", 34)),
    "npm": _of("npm_", ALNUM, 36),
    "pypi": _of("pypi-AgEIcHlwaS5vcmc", BASE64URL, 150),
    "docker-hub": _of("dckr_pat_", BASE64URL, 27),
    "twilio": _of("SK", HEX, 32),
    "sendgrid": _joined(".", _of("SG.", BASE64URL, 22), _of("", BASE64URL, 43)),
    "mailgun": _of("key-", HEX, 32),
    "new-relic": _of("NRAK-", UPPER + DIGITS, 27),
    "vault": _of("hvs.", BASE64URL, 90),
    "terraform-cloud": _joined(".atlasv1.", _of("", ALNUM, 14), _of("", ALNUM, 67)),
    "digitalocean": _of("dop_v1_", HEX, 64),
    "databricks": _of("dapi", HEX, 32),
    "shopify": _of("shpat_", HEX, 32),
    "grafana": _joined("_", _of("glsa_", ALNUM, 32), _of("", HEX, 8)),
    "linear": _of("lin_api_", ALNUM, 40),
    "telegram": _joined(":", _of("", "123456789", 10), _of("AA", BASE64URL, 33)),
    "jwt": _jwt,
    "cloudflare": _of("", BASE64URL, 40),
}
"""Credentials that show what they are, by prefix or by sheer length, wherever they stand."""

NAMED: dict[str, Callable[[Random], str]] = {
    "password": _of("", PASSWORD, 16),
    "short-password": _of("Pw", ALNUM, 8),
    "datadog": _of("", HEX, 32),
    "twilio-auth": _of("", HEX, 32),
    "pagerduty": _of("u+", BASE64URL, 18),
    "heroku": _uuid,
    "azure-openai": _of("", HEX, 32),
    "postgres": _of("", ALNUM + "!*~", 12),
    "redis": _of("", ALNUM, 14),
    "digits": _of("", DIGITS, 10),
}
"""Credentials that only their surroundings give away: a digest, an id or a word could read the same."""

ENCODED: dict[str, Callable[[str, Random], str]] = {
    "plain": lambda value, _: f"--verbose {value} /srv/data",
    "path": lambda value, _: f"/srv/cache/{value}/data.json",
    "base64": lambda value, _: f"-c echo {_b64(value)} | base64 -d",
    "base64-in-json": lambda value, _: (
        f"--data {_b64(chr(123) + chr(34) + 'k' + chr(34) + ':' + chr(34) + value + chr(34) + chr(125))}"
    ),
    "base64-twice": lambda value, _: _b64(_b64(value)),
    "hex": lambda value, _: f"-n {value.encode().hex()} | xxd -r -p",
    "url-encoded": lambda value, _: f"https://example.org/cb?next={quote(quote(value, safe=''), safe='')}&page=2",
    "double-quotes": lambda value, random: f'-c "run {_split(value, random, chr(34))} now"',
    "single-quotes": lambda value, random: f"-c run {_split(value, random, chr(39))} now",
    "escaped": lambda value, _: f"-c printf '{''.join(f'{chr(92)}x{byte:02x}' for byte in value.encode())}'",
}
"""What hides a credential that shows what it is: each is to be seen through wherever it stands."""
_USED: dict[str, Callable[[str, Random], str]] = {
    "environment": lambda value, _: f'-c "export SERVICE_TOKEN={value}; run --fast"',
    "option": lambda value, _: f"--host db.example --password {value} --port 5432",
    "option-equals": lambda value, _: f"--api-key={value} --region eu-west-1",
    "option-split": lambda value, random: f"--client-secret={_split(value, random, chr(34))} --yes",
    "option-split-single": lambda value, random: f"--db-password {_split(value, random, chr(39))} --yes",
    "json": lambda value, _: f'-d {{"model": "m-1", "api_key": "{value}", "stream": true}}',
    "escaped-json": lambda value, _: f'-d "{{\\"user\\": \\"ops\\", \\"password\\": \\"{value}\\"}}"',
    "yaml": lambda value, _: f"password: {value}\nuser: ops\n",
    "secret-manifest": lambda value, _: f"data: {{password: {_b64(value)}}}",
    "bearer": lambda value, _: f'-s -H "Authorization: Bearer {value}" https://api.example.org/v1',
    "basic": lambda value, _: f'-s -H "Authorization: Basic {_b64("ops:" + value)}" https://api.example.org/v1',
    "http-head": lambda value, _: (
        f"GET / HTTP/1.1\r\nHost: example.org\r\nAuthorization: Token {value}\r\nAccept: */*\r\n\r\n"
    ),
    "header": lambda value, _: f'-H "X-Api-Key: {value}" https://api.example.org',
    "cookie": lambda value, _: f'-H "Cookie: lang=en; session={value}" https://app.example.org',
    "user-option": lambda value, _: f"-u ops:{value} https://api.example.org",
    "url-userinfo": lambda value, _: f"postgres://app:{quote(value, safe='')}@db.example:5432/main",
    "url-query": lambda value, _: (
        f"https://api.example.org/v1/items?limit=5&access_token={quote(value, safe='')}&page=2"
    ),
    "connection-string": lambda value, _: f"Server=db.example;User Id=app;Password={value};Encrypt=true",
    "element": lambda value, _: f"<user><name>ops</name><password>{value}</password></user>",
    "env-of-a-container": lambda value, _: f'-p {{"env":[{{"name":"DB_PASSWORD","value":"{value}"}}]}}',
    "yaml-block": lambda value, _: f"user: ops\npassword: |\n  {value}\nhost: db\n",
    "call": lambda value, _: f"-c \"client.set_password('{value}'); client.run()\"",
    "setting": lambda value, _: f"config set db.password {value}",
    "login": lambda value, _: f'-c "docker login -u ops -p {value} registry.example"',
    "literal": lambda value, _: f'-c "kubectl create secret generic db --from-literal=db={value}"',
    "piped": lambda value, _: f"-c \"echo '{value}' | sudo -S id\"",
    "here-string": lambda value, _: f"-c \"chpasswd <<< 'ops:{value}'\"",
    "from-a-document": lambda value, _: f"—password\N{NO-BREAK SPACE}{value} ‑‑yes",  # noqa: RUF001 - dashes of a document
    "url-encoded-form": lambda value, _: f"--data user%3Dops%26password%3D{quote(value, safe='')}",
}


def generate(seed: int, count: int) -> list[Canary]:
    """Make `count` canaries, every shape in turn, each in a wrapping that its shape allows."""
    random = Random(seed)  # noqa: S311 - the same credentials on every run
    shapes = [(name, make, {**ENCODED, **_USED}) for name, make in RECOGNISABLE.items()]
    shapes += [(name, make, _USED) for name, make in NAMED.items()]
    made = []
    for index in range(count):
        shape, make, wrappings = shapes[index % len(shapes)]
        value = make(random)
        wrapping = random.choice([name for name in wrappings if name != "path" or "/" not in value])
        made.append(Canary(value, wrappings[wrapping](value, random), shape, wrapping))
    return made


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _split(value: str, random: Random, mark: str) -> str:
    """Write a value as adjacent quoted pieces, as a shell joins them."""
    first, second = sorted(random.sample(range(1, len(value)), 2))
    return f"{mark}{value[:first]}{mark}{mark}{value[first:second]}{mark}{mark}{value[second:]}{mark}"
