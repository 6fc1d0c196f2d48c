"""Addresses from responses: only those of the Internet are used."""

import pytest

from mcp_taskruns.core.calls.addresses import is_loopback_url, may_be_public


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "a.localhost",
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "a.0x7f",
        "0",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "224.0.0.1",
        "255.255.255.255",
        "%31%32%37.0.0.1",
        "127\u3002\uff10.0.1",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[::127.0.0.1]",
        "[fe80::1]",
        "[fe80::1%25eth0]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[2002:7f00:1::]",
        "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::169.254.169.254]",
        "[64:ff9b:1::1]",
        "[2001:db8::1]",
        "[ff02::1]",
    ],
)
def test_address_that_is_not_public_is_recognised_in_every_form(host: str) -> None:
    assert not may_be_public(f"https://{host}/")


@pytest.mark.parametrize(
    "host",
    ["bucket.s3.amazonaws.com", "my_bucket.example.", "8.8.8.8", "[2606:4700:4700::1111]", "[64:ff9b::8.8.8.8]", "1a"],
)
def test_public_address_and_name_may_be_public(host: str) -> None:
    assert may_be_public(f"https://{host}:8443/key")


@pytest.mark.parametrize(
    ("url", "is_loopback"),
    [
        ("http://localhost:80/v1", True),
        ("http://[::1]:1/", True),
        ("https://api.example", False),
        ("https://10.0.0.1", False),
        ("text", False),
    ],
)
def test_loopback_url_is_recognised(url: str, is_loopback: bool) -> None:
    assert is_loopback_url(url) is is_loopback
