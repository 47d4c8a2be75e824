"""Names and shapes of credentials."""

import pytest
import re2

from keytrail.decode.credential_patterns import SHAPES, is_secret_parameter, looks_like_credential_name

CREDENTIALS = [
    "CLOSEDAI_API_KEY", "FOO_TOKEN", "FOO_SECRET", "FOO_PASSWORD", "FOO_PASSWD", "FOO_ACCESS_KEY", "FOO_CREDENTIALS",
    "PGPASSWORD", "MYSQL_PWD", "GH_TOKEN_2", "APP_KEY", "DJANGO_SECRET_KEY", "npm_config__authToken", "JWT_SECRET",
    "PRIVATE_KEY", "ENCRYPTION_KEY", "DB_PASS", "FOO_PASSPHRASE", "SECRET_KEY_BASE",
]  # fmt: skip
HARMLESS = [
    "SSH_AUTH_SOCK", "GPG_KEY", "MAX_TOKENS", "TOKENIZERS_PARALLELISM", "AWS_ACCESS_KEY_ID", "XDG_SESSION_ID",
    "KEYBOARD", "COLORTERM", "KEY", "PWD", "OLDPWD", "INVOCATION_ID", "MY_SECRET_NAME", "FOO_TOKEN_EXPIRY",
    "FOO_TOKEN_URL", "FOO_PUBLIC_KEY", "SSH_PUBLIC_KEY", "TLS_PRIVATE_KEY_FILE", "PASSWORD_FILE", "AUTHOR", "BYPASS",
    "PASSENGER_ROOT", "COMPASS", "DATABASE_URL", "PATH", "HOME", "LS_COLORS", "", "=", "N\ufffdM\ufffd",
]  # fmt: skip


@pytest.mark.parametrize("name", CREDENTIALS)
def test_a_name_that_looks_like_a_credential(name: str) -> None:
    """Usual endings count, in any case and with a number behind."""
    assert looks_like_credential_name(name)


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_name(name: str) -> None:
    """Names of files, ids, expiries, public keys and everyday variables stay silent."""
    assert not looks_like_credential_name(name)


def test_urls_use_shorter_words() -> None:
    """sig, key and code are secrets in a URL, page and limit are not."""
    assert all(map(is_secret_parameter, ("sig", "key", "code", "access_token", "X-Amz-Signature", "X-Amz-Credential")))
    assert not any(map(is_secret_parameter, ("page", "limit", "q", "redirect_uri", "client_id", "")))


def test_shapes_have_names_of_their_own_and_cover_providers() -> None:
    """Over 30 providers, no name twice, each expression is RE2 and cannot match the empty text."""
    names = [name for name, _ in SHAPES]
    assert len(set(names)) == len(names) > 30
    assert not [name for name, expression in SHAPES if re2.compile(expression.decode()).search("")]
