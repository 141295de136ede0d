from __future__ import annotations

import random
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from stylegan_t.data.download.addresses import ForbiddenAddress, Gate

PUBLIC = ["1.1.1.1", "8.8.8.8", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.0", "169.253.1.1",
          "2606:4700:4700::1111", "2a00:1450:4001::1", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"]  # fmt: skip
INSIDE = {
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "fc00::1", "fdff::1"],
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "link-local": ["169.254.169.254", "fe80::1", "fe80::1%eth0"],
    "of a carrier": ["100.64.0.1", "100.127.255.255", "100.100.100.200"],
    "of a cloud": ["168.63.129.16", "fd00:ec2::254"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1"],
    "nobody's": ["0.0.0.0", "0.1.2.3", "255.255.255.255", "240.0.0.1", "::", "fec0::1", "4000::1"],
    "for documents": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "inside another": ["::ffff:10.0.0.1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::1",
                       "2002:7f00:1::1", "2001:0:7f00:1::1"],
    "no address": ["localhost", "2130706433", "0x7f.1", "127.1", "0177.0.0.1", "", "1.1.1.1.1", "１.１.１.１"],
}  # fmt: skip


@pytest.mark.parametrize("host", PUBLIC)
def test_public_addresses_may_be_connected_to(host):
    assert Gate([]).is_open(host)


@pytest.mark.parametrize(("kind", "host"), [(kind, host) for kind, hosts in INSIDE.items() for host in hosts])
def test_all_others_may_not(kind, host):
    assert not Gate([]).is_open(host), kind


@pytest.mark.parametrize(("kind", "bits"), [(IPv4Address, 32), (IPv6Address, 128)])
def test_no_address_is_open_that_python_knows_as_not_global(kind, bits):
    draw, gate = random.Random(0), Gate([])
    for _ in range(20_000):
        address = kind(draw.getrandbits(bits) >> draw.choice([0, 0, bits // 4]))
        if gate.is_open(str(address)):
            seen = ip_address(getattr(address, "ipv4_mapped", None) or address)
            assert seen.is_global and not seen.is_multicast, address


def test_allowed_networks_are_open_and_nothing_beside_them():
    gate = Gate(["10.1.0.0/16", "127.0.0.1/32", "fd00::/8"])
    assert all(map(gate.is_open, ["10.1.2.3", "127.0.0.1", "::ffff:10.1.2.3", "fd12::1", "8.8.8.8"]))
    assert not any(map(gate.is_open, ["10.2.0.1", "127.0.0.2", "fc00::1", "::1"]))


@pytest.mark.parametrize(
    "info",
    [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 80)),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 80, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "example.com", ("2130706433", 80)),
    ],
)
def test_no_socket_is_made_for_a_closed_address(info, monkeypatch):
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("a socket was made"))
    with pytest.raises(ForbiddenAddress, match="allowed_networks"):
        Gate([]).make_socket(info)


def test_a_socket_for_an_open_address_is_of_the_kind_asked_for():
    with Gate(["127.0.0.1/32"]).make_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))) as made:
        assert (made.family, made.type) == (socket.AF_INET, socket.SOCK_STREAM)
