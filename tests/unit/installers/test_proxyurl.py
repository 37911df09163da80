"""Proxy values: one strict reader, one normal form, no password in anything that is shown."""

from __future__ import annotations

import string
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installers import noproxy
from installers.errors import ConfigError
from installers.exits import Exit
from installers.proxyurl import ProxyURL, parse

# A proxy value is decoded as UTF-8: half a surrogate pair cannot come out of it.
PRINTABLE = st.text(
    st.characters(codec="utf-8", min_codepoint=0x20, exclude_characters="\x7f"), max_size=30
)
CREDENTIAL = PRINTABLE.filter(lambda text: all(ord(char) not in range(0x7F, 0xA0) for char in text))
USERS = CREDENTIAL.filter(bool)
HOSTS = st.one_of(
    st.from_regex(
        r"[a-z][a-z0-9]{0,10}(-[a-z0-9]{1,5})?(\.[a-z][a-z0-9]{0,8}){0,3}", fullmatch=True
    ),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
)
PROXIES = st.builds(
    ProxyURL,
    scheme=st.sampled_from(["http", "https"]),
    host=HOSTS,
    port=st.integers(1, 65535),
    user=USERS,
    password=st.one_of(st.none(), CREDENTIAL),
)


@given(PROXIES)
def test_normal_form_reads_back_as_itself(proxy: ProxyURL) -> None:
    again = parse(proxy.url, "http-proxy")
    assert again == proxy
    assert again is not None
    assert again.url == proxy.url


@given(PROXIES)
def test_normal_form_is_what_a_url_parser_reads(proxy: ProxyURL) -> None:
    parts = urlsplit(proxy.url)
    assert parts.port == proxy.port
    assert parts.scheme == proxy.scheme
    assert (parts.path, parts.query, parts.fragment) == ("", "", "")
    assert set(parts.netloc) <= set(string.ascii_letters + string.digits + "-._~%:@[]")


@given(USERS, st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=12))
def test_password_is_in_no_shown_form(user: str, password: str) -> None:
    proxy = ProxyURL("http", "proxy.example", 3128, user, password)
    shown = f"{proxy} {proxy!r} {proxy.redacted} {proxy.without_credentials} {[proxy]}"
    assert password not in shown
    assert quote(password, safe="") not in shown


def refusal(text: str) -> ConfigError | None:
    try:
        parse(text, "http-proxy")
    except ConfigError as error:
        return error
    return None


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_and_never_repeated(text: str) -> None:
    error = refusal(text)
    if error is None:
        proxy = parse(text, "http-proxy")
        assert proxy is None or 1 <= proxy.port <= 65535
    else:
        assert (error.exit, error.where) == (Exit.USAGE, "http-proxy")
        assert error.what
        assert error.remedy
        assert len(text.strip()) < 8 or text.strip() not in str(error)


@pytest.mark.parametrize("value", [None, "", "  ", ":", " :\n", "\n"])
def test_unset(value: str | None) -> None:
    assert parse(value, "http-proxy") is None


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("10.0.2.100:3128", "http://10.0.2.100:3128"),
        ("Proxy.Example:3128\n", "http://proxy.example:3128"),
        ("http://h:1/", "http://h:1"),
        ("HTTPS://h:443", "https://h:443"),
        ("[::1]:3128", "http://[::1]:3128"),
        ("http://[2001:DB8:0:0::1]:80", "http://[2001:db8::1]:80"),
        ("u:p%40%3a%2F@h:1", "http://u:p%40%3A%2F@h:1"),
        ("u:p:w@h:1", "http://u:p%3Aw@h:1"),
        ("u@h:1", "http://u@h:1"),
        ("u:@h:1", "http://u:@h:1"),
        ("DOM%5Cu:p@h:1", "http://DOM%5Cu:p@h:1"),
    ],
)
def test_accepted(value: str, url: str) -> None:
    proxy = parse(value, "http-proxy")
    assert proxy is not None
    assert proxy.url == url


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("host", "no port"),
        ("http://host", "no port"),
        ("http://http://h:1", "scheme twice"),
        ("socks5://h:1", "http or https"),
        ("user:p@ss@h:1", "more than one @"),
        ("http://user:p@ss@h:1", "more than one @"),
        ("user:p/ss@h:1", "must be encoded"),
        ("user:p#ss@h:1", "must be encoded"),
        ("user:p%ss@h:1", "must be encoded"),
        ("user:p%0ass@h:1", "control character"),
        ("user:p%ffss@h:1", "not UTF-8"),
        (":pass@h:1", "no user"),
        ("h:0", "port"),
        ("h:65536", "port"),
        ("h:3128x", "port"),
        ("h:", "port"),
        ("h:+80", "port"),
        ("::1:3128", "more than one colon"),
        ("[::1]", "[IPv6]:port"),
        ("[::zz]:1", "not IPv6"),
        ("1.2.3.400:80", "IPv4"),
        ("a b:80", "blank"),
        ("h\t:80", "blank"),
        ("h:80\x00", "control"),
        ("pröxy:80", "ASCII"),
        ("-h:80", "name or an address"),
        ("h..x:80", "name or an address"),
        ("http://h:1/path", "no path"),
        ("h:1?x", "no path"),
    ],
)
def test_refused(value: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what.replace("[", r"\[")) as caught:
        parse(value, "https-proxy")
    text = str(caught.value)
    assert text.startswith("https-proxy: ")
    assert "ss" not in text.replace("password", "").replace("address", "").replace("pass", "")
    assert caught.value.remedy


def test_no_proxy_defaults_come_first_without_doubles() -> None:
    entries, notes = noproxy.parse("localhost, .corp.example  corp.example,,Host.Corp.Example.")
    assert entries == [*noproxy.DEFAULTS, ".corp.example", "corp.example", "host.corp.example"]
    assert notes == []
    assert "," * 2 not in noproxy.join(entries)


@pytest.mark.parametrize(
    ("entry", "found", "note"),
    [
        ("*.corp.example", [".corp.example", "corp.example"], "written as"),
        ("10.0.0.0/8", [], "ignore networks"),
        ("10.1.2.3/32", ["10.1.2.3"], ""),
        ("*", [], "switch the proxy off"),
        ("10.", [], "pattern"),
        ("10.9.8.*", [], "pattern"),
        ("host:8080", [], "port"),
        ("[fd00::1]", ["fd00::1"], "urllib and npm"),
    ],
)
def test_no_proxy_entries(entry: str, found: list[str], note: str) -> None:
    entries, notes = noproxy.parse(entry)
    assert entries[len(noproxy.DEFAULTS) :] == found
    assert len(notes) == bool(note)
    assert note in "".join(notes)


@pytest.mark.parametrize("entry", ["http://x", "a/b", "a\x01b", "a;b", "-x", "ä.example"])
def test_no_proxy_refuses_what_is_no_host(entry: str) -> None:
    with pytest.raises(ConfigError, match="no-proxy"):
        noproxy.parse(entry)


@given(st.text(max_size=80))
def test_no_proxy_value_is_portable(text: str) -> None:
    try:
        entries, _ = noproxy.parse(text)
    except ConfigError:
        return
    joined = noproxy.join(entries)
    assert joined == joined.lower()
    assert not set(joined) & set(" \t*/@\"'\\%\n")
    assert len(set(entries)) == len(entries)
    for entry in entries:
        assert not entry.startswith(".") or entry[1:] in entries


def test_bypass_needs_a_dot_boundary() -> None:
    entries = [".corp.example", "corp.example", "10.0.0.1"]
    assert noproxy.matches("a.corp.example", entries)
    assert noproxy.matches("CORP.example.", entries)
    assert not noproxy.matches("evilcorp.example", entries)
    assert not noproxy.matches("corp.example.evil", entries)
