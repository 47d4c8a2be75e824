"""Patterns as they were prepared against RE2 itself and against plain words for what they mean."""

# ruff: noqa: E501 - tables, read row by row

import ipaddress
from typing import Any

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from keytrail.detect.patterns import Remembered, globber, networks, required_texts, searcher

pieces = st.sampled_from(
    ["a", "b", "ab", "/", "[.]", r"\.", ".", "[ab]", "[^a]", "(a|b)", "(?:ab)+", "(a)", "a*", "b+", "a?", "ab{2}", "a{0,1}", "^", "$", r"\b", r"\d", "|", "(?i)a", "[]a]", "[a]", "[^]]", r"\Qa.b\E", "a**", "b+?", "(", ")", "(?i)", "(?s)", "(?s:a|b)", "(?:a|b)", "(ab|)", "k", "\u212a", r"\x61", "{", "a{,2}", "[[:alpha:]]", r"[\]a]", r"\pL", "()"]
)  # fmt: skip
texts = st.lists(
    st.sampled_from(["a", "b", "A", "k", "K", "\u212a", ".", "/", "]", "{", "|", "ab", "abb", "{,2}", "1"]), max_size=8
).map("".join)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(pieces, min_size=1, max_size=6).map("".join), min_size=1, max_size=3),
    st.lists(texts, min_size=4, max_size=12),
)
def test_the_look_for_letters_changes_no_answer(patterns: list[str], given_texts: list[str]) -> None:
    """Whatever the expressions, a prepared test says what RE2 says of each of them."""
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = [re2.compile(pattern, options=options) for pattern in patterns]
    except re2.error:
        with pytest.raises(re2.error):
            searcher(tuple(patterns))
        return
    folded = tuple(f"(?i){pattern}" for pattern in patterns)
    one, several, insensitive = searcher(patterns[0]), searcher(tuple(patterns)), searcher(folded)
    for text in given_texts:
        assert one(text) == bool(compiled[0].search(text))
        assert several(text) == any(each.search(text) for each in compiled)
        assert insensitive(text) == any(re2.search(pattern, text) for pattern in folded)


@pytest.mark.parametrize(
    ("pattern", "needed"),
    [
        ("/[.][^./][^/]*/", {"/."}),
        ("base64 +(-d|--decode)", {"base64 "}),
        ("(curl|wget) [^|]*[|]", {"curl", "wget"}),
        ("(curl|wget|nc|ncat|ftp) [^|]*[|]", {"|"}),
        ("/[.](aws|ssh|kube|azure|config)/", {"/."}),
        ("(?s)(curl|wget).* (?s:secret.*)-d", {"secret"}),
        ("(nc|ncat) .*(curl|wget)", {"curl", "wget"}),
        ("ab|cd", {"ab", "cd"}),
        ("ab|c*", set()),
        ("(a(?i)b)", set()),
        (r"^/tmp/\.x", {"/tmp/.x"}),
        ("abc?", {"ab"}),
        ("abc{0,3}d", {"ab"}),
        ("(ab)?c", {"c"}),
        (r"\d+", set()),
        (r"\Qa|b\E", set()),
    ],
)
def test_required_texts(pattern: str, needed: set[str]) -> None:
    """What must occur is found for patterns such as rules have, and nothing is guessed."""
    assert set(required_texts(pattern)) == needed


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/tmp/**", "/tmp/a/b", True),
        ("/tmp/**", "/tmp", False),
        ("/tmp/*", "/tmp/a/b", False),
        ("/tmp/*", "/tmp/a", True),
        ("/etc/shadow", "/etc/shadow", True),
        ("/etc/shadow", "/etc/shadow-", False),
        ("**/.ssh/id_*", "/home/alice/.ssh/id_rsa", True),
        ("/etc/cron*/**", "/etc/cron.d/x", True),
        ("/var/run/secrets/*", "/run/secrets/token", True),
        ("/run/secrets/*", "/var/run/secrets/token", True),
        ("/run/secrets/app/token", "/run/secrets/app/..2026_01_02_03_04_05.123456/token", True),
        ("/a.b", "/aXb", False),
        ("/tmp/*", "/tmp/a\n", True),
        ("/tmp/a", "/tmp/a\n", False),
    ],
)
def test_glob(pattern: str, path: str, matches: bool) -> None:
    """Patterns of paths mean what those of identity mappings do; alone and among others."""
    assert globber(pattern)(path) is matches
    assert globber((pattern, "/nowhere/*"))(path) is matches


@pytest.mark.parametrize(
    ("address", "inside"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("11.0.0.1", False), ("fd00::1", True), ("::1", False), ("", False), ("/run/docker.sock", False)],
)  # fmt: skip
def test_networks(address: str, inside: bool) -> None:
    """IPv4 within IPv6 counts as IPv4, and what is no address is in no network."""
    assert networks(("10.0.0.0/8", "fd00::/8"))(address) is inside


octets = st.integers(0, 260).map(str) | st.sampled_from(["", "01", "00", "-1", " 1", "1e1", "\u0661", "\0", "0x1"])
addresses = st.one_of(
    st.lists(octets, min_size=3, max_size=5).map(".".join),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.ip_addresses(v=4).map("::ffff:{}".format),
    st.sampled_from(["fe80::1%eth0", "::ffff:10.0.0.1%1", "1", "10.1", "10.0.0.1\n", "\ud800", "::1"]),
    st.text(max_size=12),
)


@settings(max_examples=500, deadline=None)
@given(addresses)
def test_an_address_is_in_the_networks_that_the_standard_library_says(text: str) -> None:
    """Reading the common form of an address by hand changes no answer, whatever the text."""
    try:
        parsed: Any = ipaddress.ip_address(text)
    except ValueError:
        parsed = None
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    for network in ("0.0.0.0/0", "10.0.0.0/8", "127.0.0.1/32", "128.0.0.0/1", "::/0", "fe80::/10", "::1/128"):
        assert networks(network)(text) is (parsed is not None and parsed in ipaddress.ip_network(network))


def test_remembered_answers_are_those_of_the_test_and_bounded() -> None:
    """The same answers, asked for once each, whatever comes between them; long text is never kept."""
    asked: list[str] = []

    def is_even(text: str) -> bool:
        asked.append(text)
        return len(text) % 2 == 0

    test = Remembered(is_even).__getitem__
    for _ in range(3):
        assert [test(text) for text in ("", "a", "ab")] == [True, False, True]
    assert asked == ["", "a", "ab"]
    assert test("x" * 300)
    assert test("x" * 300)
    assert len(asked) == 5
    for number in range(1_000):
        test(f"{number:04}")
    assert not test("a")
    assert asked.count("a") == 2
