"""Metadata to configuration: precedence of the proxy keys, and where attributes come from."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from fixtures.metadata import MetadataServer
from installers import metadata
from installers.config import from_attributes
from installers.errors import ConfigError, UnreachableError
from installers.exits import Exit

VALUES = {"absent": None, "unset": ":", "given": "h"}


@pytest.mark.parametrize("states", list(itertools.product(VALUES, repeat=3)))
def test_every_combination_of_the_three_keys(states: tuple[str, str, str]) -> None:
    keys = ("http-proxy", "https-proxy", "proxy-uri")
    attributes = {}
    for key, state in zip(keys, states, strict=True):
        value = VALUES[state]
        if value is not None:
            attributes[key] = f"{key}:1" if value == "h" else value
    http_given, https_given, uri_given = (state == "given" for state in states)
    uri = "http://proxy-uri:1" if uri_given else None
    http = "http://http-proxy:1" if http_given else uri
    https = "http://https-proxy:1" if https_given else uri or http
    proxy = from_attributes(attributes).proxy
    assert (proxy.http and proxy.http.url) == http
    assert (proxy.https and proxy.https.url) == https
    copied = http is not None and not https_given and not uri_given
    assert any("https goes through" in note for note in proxy.notes) == copied
    assert set(proxy.environment(credentials=True)) == {
        name
        for lower, value in (
            ("http_proxy", http),
            ("https_proxy", https),
            ("no_proxy", http or https),
        )
        if value
        for name in (lower, lower.upper())
    }


def test_other_keys() -> None:
    config = from_attributes(
        {
            "invocation-type": "custom-images",
            "airlock-signer": "/run/airlock/sign.sock",
            "airlock-apt-https": "true",
            "http-proxy-pem-uri": "file:///ca.pem",
        }
    )
    assert config.image_build
    assert config.secure_boot == "required"
    assert config.apt_https
    assert config.pem_uri == "file:///ca.pem"
    assert not from_attributes({"invocation-type": "init-action"}).image_build
    assert from_attributes({}).secure_boot == "off"


@pytest.mark.parametrize(
    "attributes",
    [
        {"airlock-apt-https": "perhaps"},
        {"airlock-secure-boot": "perhaps"},
        {"no-proxy": "http://x"},
        {"proxy-uri": "h"},
    ],
)
def test_wrong_values_name_their_key(attributes: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        from_attributes(attributes)
    assert caught.value.where == next(iter(attributes))


def test_configuration_never_shows_a_password() -> None:
    config = from_attributes({"proxy-uri": "http://bob:c%40nary-secret@h:1"})
    assert "nary-secret" not in repr(config)


def test_instance_wins_over_project_even_when_it_unsets() -> None:
    document = {
        "instance": {"attributes": {"http-proxy": ":"}},
        "project": {"attributes": {"http-proxy": "p:1", "no-proxy": "x.example"}},
    }
    assert metadata.merge(document, "x") == {"http-proxy": ":", "no-proxy": "x.example"}


def test_real_protocol_with_both_levels() -> None:
    with MetadataServer({"http-proxy": "i:1"}, {"http-proxy": "p:1", "no-proxy": "y"}) as server:
        server.serve()
        found = metadata.load(f"http://127.0.0.1:{server.port}", patience=5)
        token = metadata.access_token(f"http://127.0.0.1:{server.port}")
    assert found["http-proxy"] == "i:1"
    assert found["no-proxy"] == "y"
    assert token == server.token


def test_environment_proxy_is_not_used_for_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with MetadataServer({"a": "b"}) as server:
        server.serve()
        assert metadata.load(f"http://127.0.0.1:{server.port}", patience=5)["a"] == "b"


def test_dead_server_is_could_not_tell() -> None:
    with pytest.raises(UnreachableError) as caught:
        metadata.load("http://127.0.0.1:9", patience=0.2)
    assert caught.value.exit == Exit.UNKNOWN
    assert "nothing was changed" in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "not JSON at line 1"),
        ("[]", "not a JSON object"),
        ('{"instances": {}}', "holds instances"),
        ('{"instance": {"attributes": {"a": 1}}}', "value of a is not a text"),
        ('{"instance": {"attributes": []}}', "instance.attributes"),
        ('{"instance": 3}', "instance.attributes"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, what: str) -> None:
    file = tmp_path / "metadata.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=what):
        metadata.load(str(file), patience=5)


def test_file(tmp_path: Path) -> None:
    file = tmp_path / "metadata.json"
    file.write_text(json.dumps({"instance": {"attributes": {"a": "b"}}}))
    assert metadata.load(str(file), patience=5) == {"a": "b"}
    with pytest.raises(ConfigError, match="No such file"):
        metadata.load(str(tmp_path / "none.json"), patience=5)
