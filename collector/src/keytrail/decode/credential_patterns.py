"""What credentials look like: the shapes that providers give their keys, and the names under which people pass secrets.

Data and pure functions. In: a name, or nothing. Out: whether the name speaks of a credential, and compiled shapes for
`redact` to search with. Must not know where text comes from or what happens to what is found.

Shapes are those that the providers document or publish for secret scanning. Each is open to the right, so that a longer
variant is never cut short, and holds a literal prefix or a fixed structure: what has neither is `randomness`'s work.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, Final

import re2

_NO_SPAN: Final = (-1, -1)
"""Where RE2 found nothing."""

SHAPES: tuple[tuple[str, bytes], ...] = (
    ("private-key", rb"-----BEGIN[A-Z ]{0,24}PRIVATE KEY(?: BLOCK)?-----"),
    ("age-key", rb"AGE-SECRET-KEY-1[0-9A-Z]{40,}"),
    ("jwt", rb"eyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*){0,3}"),
    ("aws-access-key", rb"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16,}"),
    ("aws-session-token", rb"(?:FwoGZXIvYXdz|IQoJb3JpZ2lu)[A-Za-z0-9+/=]{40,}"),
    ("aws-bedrock-key", rb"ABSK[A-Za-z0-9+/]{100,}={0,2}"),
    ("azure-client-secret", rb"\dQ~[\w~.-]{31,}"),
    ("gcp-api-key", rb"AIza[\w-]{35,}"),
    ("gcp-oauth", rb"ya29\.[\w.-]{20,}|GOCSPX-[\w-]{20,}|1//0[\w-]{40,}"),
    ("github-token", rb"gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{40,}"),
    ("gitlab-token", rb"gl(?:pat|ptt|dt|rt|rtr|cbt|agent|oas|ft|imt|soat|ffct|wt)-[\w.-]{20,}|GR1348941[\w-]{20,}"),
    ("bitbucket-token", rb"ATBB[A-Za-z0-9_=-]{24,}"),
    ("atlassian-token", rb"AT(?:ATT|CTT)3[\w=-]{50,}"),
    ("slack-token", rb"xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-\d-[A-Za-z0-9-]{20,}|xoxe\.xox[bp]-\d-[A-Za-z0-9]{50,}"),
    ("slack-webhook", rb"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/]{20,}"),
    ("discord-webhook", rb"discord(?:app)?\.com/api/webhooks/\d{10,}/[\w-]{30,}"),
    ("password-hash", rb"\$(?:[156y7]|gy|apr1|2[abxy]|argon2(?:id|i|d))\$[\w./$=,+-]{20,}"),
    ("telegram-token", rb"\b\d{8,10}:[\w-]{35,}"),
    ("anthropic-key", rb"sk-ant-[\w-]{16,}"),
    ("openrouter-key", rb"sk-or-v1-[0-9a-f]{40,}"),
    ("openai-key", rb"\bsk-[\w-]{20,}"),
    ("huggingface-token", rb"\bhf_[A-Za-z0-9]{30,}|\bapi_org_[A-Za-z0-9]{30,}"),
    ("groq-key", rb"\bgsk_[A-Za-z0-9]{40,}"),
    ("replicate-token", rb"\br8_[A-Za-z0-9]{30,}"),
    ("pinecone-key", rb"\bpcsk_\w{30,}"),
    ("perplexity-key", rb"\bpplx-[A-Za-z0-9]{32,}"),
    ("xai-key", rb"\bxai-[A-Za-z0-9]{60,}"),
    ("nvidia-key", rb"\bnvapi-[\w-]{40,}"),
    ("langsmith-key", rb"\blsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}"),
    ("stripe-key", rb"[sr]k_(?:live|test)_[\w-]{10,}|\bwhsec_[A-Za-z0-9+/=]{20,}"),
    ("square-token", rb"sq0(?:atp|csp)-[\w-]{22,}|\bEAAA[\w-]{60,}"),
    ("shopify-token", rb"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32,}"),
    ("twilio-key", rb"\bSK[0-9a-f]{32}\b"),
    ("sendgrid-key", rb"\bSG\.[\w-]{16,}\.[\w-]{16,}"),
    ("mailgun-key", rb"\bkey-[0-9a-f]{32}|\b[0-9a-f]{32}-[0-9a-f]{8}-[0-9a-f]{8}\b"),
    ("mailchimp-key", rb"\b[0-9a-f]{32}-us\d{1,2}\b"),
    ("newrelic-key", rb"NR(?:AK|II|JS|BR)-[A-Za-z0-9_-]{19,}|[0-9a-f]{36}NRAL"),
    ("sentry-token", rb"sntry[su]_[\w+/=.-]{40,}"),
    ("grafana-token", rb"\bglsa_\w{32,}|\bglc_[A-Za-z0-9+/=]{30,}"),
    ("dynatrace-token", rb"dt0[a-z]\d\d\.[A-Z0-9]{24}\.[A-Z0-9]{64}"),
    ("vault-token", rb"\bhv[sbr]\.[\w-]{20,}|\bs\.[A-Za-z0-9]{24,}"),
    ("terraform-token", rb"\.atlasv1\.[\w-]{40,}"),
    ("digitalocean-token", rb"\bdo[opr]_v1_[0-9a-f]{64}"),
    ("cloudflare-key", rb"\bv1\.0-[0-9a-f]{24}-[0-9a-f]{100,}"),
    ("heroku-key", rb"\bHRKU-[\w-]{36,}"),
    ("databricks-token", rb"\bdapi[0-9a-f]{32}(?:-\d)?"),
    ("npm-token", rb"\bnpm_[A-Za-z0-9]{36,}"),
    ("pypi-token", rb"\bpypi-[\w-]{16,}"),
    ("rubygems-key", rb"rubygems_[0-9a-f]{48}"),
    ("dockerhub-token", rb"dckr_[op]at_[\w-]{20,}"),
    ("artifactory-key", rb"\bAKCp[A-Za-z0-9]{60,}|\bcmVmdGtu[A-Za-z0-9]{40,}"),
    ("okta-token", rb"\b00[\w-]{40}\b"),
    ("linear-key", rb"\blin_(?:api|oauth)_[A-Za-z0-9]{32,}"),
    ("notion-token", rb"\b(?:secret|ntn)_[A-Za-z0-9]{40,}"),
    ("postman-key", rb"PMAK-[0-9a-f]{24}-[0-9a-f]{34}"),
    ("airtable-token", rb"\bpat[A-Za-z0-9]{14}\.[0-9a-f]{64}"),
    ("figma-token", rb"\bfig[du]_[\w-]{40,}"),
    ("pulumi-token", rb"\bpul-[0-9a-f]{40}"),
    ("planetscale-token", rb"pscale_(?:tkn|pw|oauth)_[\w.-]{32,}"),
    ("supabase-token", rb"\bsbp_[0-9a-f]{40}|\bsb_secret_[\w-]{20,}"),
    ("fly-token", rb"\bfm[12]\w?_[\w+/=,-]{50,}"),
    ("netlify-token", rb"\bnfp_\w{36,}"),
    ("doppler-token", rb"\bdp\.(?:pt|st|ct|sa|scim|audit)\.[\w.-]{40,}"),
    ("tailscale-key", rb"\btskey-[\w-]{15,}"),
    ("sonarqube-token", rb"\bsq[upa]_[0-9a-f]{40}"),
    ("buildkite-token", rb"\bbkua_[0-9a-f]{40}"),
    ("circleci-token", rb"\bCCI(?:PAT|PRJ)_\w{20,}"),
    ("alibaba-key", rb"\bLTAI[A-Za-z0-9]{16,}"),
    ("tencent-key", rb"\bAKID[A-Za-z0-9]{32,}"),
)
"""Name and RE2 expression of each provider's shape; where two fit at one place, the first one names it."""

OPEN_TO_THE_LEFT = frozenset({"azure-client-secret", "terraform-token"})
"""Shapes with their mark in the middle: the key begins before it. Searching for what precedes the mark, which may be
any character, would make the automaton of all shapes grow with every text it sees."""

SECRET_WORD = (
    rb"pass(?:w(?:or)?d|phrase|code|in|out)?|pwd?|psk|secret|token|key|cred|auth|bearer|cookie|session|signature|sig"
    rb"|jwt|dsn|sas|connection[_-]?string|connstr|mnemonic|kennwort"
)
"""Cheap first test of a name, without regard to case; `is_secret_name` decides."""

_SECRETS = frozenset({
    "password", "passwords", "passwd", "passphrase", "passcode", "pass", "passin", "passout", "pwd", "pw", "psk",
    "secret", "secrets", "token", "credential", "credentials", "cred", "creds", "apikey", "accesskey", "secretkey",
    "privatekey", "authkey", "jwt", "bearer", "mnemonic", "passwort", "kennwort",
})  # fmt: skip
_SECRET_ENDINGS = ("password", "passwd", "passphrase", "pass", "apikey", "secretkey", "accesskey", "secret", "token")
_NO_ENDINGS = frozenset({"bypass", "compass", "encompass", "overpass", "surpass", "trespass", "underpass"})
_KEY_OWNERS = frozenset({
    "api", "access", "secret", "account", "private", "auth", "authorization", "encryption", "signing", "signature",
    "master", "license", "licence", "service", "shared", "storage", "subscription", "app", "application", "client",
    "session", "admin", "deploy", "deployment", "hmac", "jwt", "webhook", "integration", "ingest", "ingestion",
    "routing", "instrumentation", "cookie", "crypt", "crypto", "cipher", "sas", "write", "publish", "management",
})  # fmt: skip
_HARMLESS_ENDINGS = frozenset({
    "file", "files", "filename", "path", "paths", "dir", "directory", "folder", "name", "names", "url", "uri", "urls",
    "endpoint", "host", "hostname", "port", "addr", "address", "server", "service", "expiry", "expires", "expiration",
    "exp", "ttl", "timeout", "age", "type", "length", "len", "size", "min", "max", "count", "limit", "lifetime",
    "duration", "interval", "window", "id", "ids", "enabled", "disabled", "required", "optional", "policy",
    "policies", "parallelism", "sock", "socket", "method", "mode", "format", "version", "alg", "algorithm",
    "algorithms", "prefix", "suffix", "header", "field", "column", "audience", "issuer", "scope", "scopes", "stdin",
    "stdout", "store", "helper", "helpers", "provider", "providers", "prompt", "rotation", "manager", "backend",
    "class", "ref", "reference", "arn", "region", "env", "var", "jar", "command", "cmd", "fd", "usage", "created",
    "updated", "at", "template", "strategy", "kind", "plugin", "plugins", "review", "reviews", "label", "labels",
    "fingerprint", "source", "sources", "location", "status", "error", "errors", "list", "index", "engine", "mount",
    "volume", "namespace", "user", "username", "role", "retries", "cache", "delay", "refresh", "sync", "check",
    "checking", "checks", "authentication", "auth", "wait", "options", "bits", "strength", "quality", "sort", "set",
})  # fmt: skip
_HARMLESS_STARTS = frozenset({
    "max", "min", "num", "no", "without", "disable", "skip", "enable", "use", "allow", "require", "has", "is", "xdg",
    "keyboard",
})  # fmt: skip
_PUBLIC = frozenset({"public", "pub", "gpg", "foreign", "existing", "nopasswd"})
_QUERY_SECRETS = frozenset({
    "sig", "signature", "key", "code", "auth", "authorization", "session", "sid", "sessionid", "sas", "hmac", "pin",
    "otp", "ticket", "assertion", "samlresponse",
})  # fmt: skip
_HEADER_SECRETS = frozenset(
    {"cookie", "cookies", "auth", "signature", "session", "sessionid", "jsessionid", "phpsessid", "dsn"}
)
_CONNECTION = ("connectionstring", "connstr")
WORKING_DIRECTORIES = frozenset({"pwd", "oldpwd"})

_SET_MEMORY = 32 << 20  # bytes: the automaton of all shapes on text that it never saw
_WORDS = re2.compile(r"[A-Z]+[a-z]*|[a-z]+|[0-9]+")


def compiled(pattern: bytes, *, ignore_case: bool = False) -> "re2._Regexp[bytes]":
    """Compile an expression for bytes. Latin-1 makes a byte a character: spans are byte offsets in any encoding."""
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.case_sensitive = not ignore_case
    options.log_errors = False
    return re2.compile(pattern, options=options)


def occurs(expression: Any) -> Callable[[bytes], bool]:
    """Whether an expression is found at all. Its `search` takes three times as long for a match that nobody needs."""
    match, anywhere = expression._regexp.Match, re2._Anchor.UNANCHORED  # noqa: SLF001 - as said: what `search` calls

    def found(data: bytes) -> bool:
        return bool(match(anywhere, data, 0, len(data))[0] != _NO_SPAN)

    return found


def compiled_set(expressions: Iterable[bytes]) -> "re2.Set":
    """Compile expressions to be tried all at once: `Match` gives the indices of those that occur, None when none does.

    One automaton without positions. An alternation would have to find where each hit begins, which for this many open
    repetitions costs RE2 a millisecond a command line.
    """
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = _SET_MEMORY
    found = re2.Set.SearchSet(options)
    for expression in expressions:
        found.Add(expression)
    found.Compile()
    return found


def words_of(name: str) -> list[str]:
    """Split a name at separators and changes of case, in lower case: `X-AuthToken_2` gives x, auth, token, 2."""
    return [word.lower() for word in _WORDS.findall(name)]


def is_secret_name(name: str) -> bool:
    """Whether the value given under this name (option, variable, field) is a credential itself, not about one."""
    words = words_of(name)
    while words and words[-1].isdigit():
        words.pop()
    if (
        not words
        or name.lower() in WORKING_DIRECTORIES
        or words[0] in _HARMLESS_STARTS
        or words[-1] in _HARMLESS_ENDINGS
        or _PUBLIC.intersection(words)
    ):
        return False
    return (
        not _SECRETS.isdisjoint(words)
        or (words[-1].endswith(_SECRET_ENDINGS) and words[-1] not in _NO_ENDINGS)
        or any(key == "key" and owner in _KEY_OWNERS for owner, key in pairwise(words))
        or "".join(words).endswith(_CONNECTION)
    )


def is_secret_field(name: str) -> bool:
    """As `is_secret_name`, for headers and fields that are followed by a colon or an equals sign."""
    words = words_of(name)
    return bool(words) and (words[-1] in _HEADER_SECRETS or words == ["pwd"] or is_secret_name(name))


def is_secret_parameter(name: str) -> bool:
    """As `is_secret_name`, for the parameters of a URL, where shorter words are secrets too."""
    words = words_of(name)
    return bool(words) and (words[-1] in _QUERY_SECRETS or name.lower() == "x-amz-credential" or is_secret_field(name))


def looks_like_credential_name(name: str) -> bool:
    """Whether an environment variable of this name probably holds a credential, of whatever provider.

    Names of files, ids, expiries and public keys do not count, nor do plurals that count (`MAX_TOKENS`).
    """
    return is_secret_name(name)
