"""Which addresses may be connected to: those of the public internet, and what the settings add.

A list of links is written by strangers, and the machine that fetches it often sits in a network of its own: cloud
metadata services, routers and databases answer whoever asks from inside. The check is made where a socket is made, on
the address that it will connect to, so nothing can come between: no odd spelling of a number, no name that resolves
differently the second time, no redirect.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""As ``socket.getaddrinfo`` tells it: family, type, protocol, canonical name, (host, port, …)."""

NOT_PUBLIC = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
            "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
            "168.63.129.16/32",  # answers inside a cloud only, whatever the registry says
            "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
        ),
    )
)  # fmt: skip
"""IANA's registries of special-purpose addresses: private, loopback, link-local, multicast, tunnels, reserved, …"""

GLOBAL_UNICAST = ip_network("2000::/3")
"""The only part of IPv6 that is in public use."""
NAT64 = ip_network("64:ff9b::/96")
"""IPv6 addresses behind which a gateway reaches the IPv4 address in their last four bytes."""


class ForbiddenAddress(OSError):
    """An address that must not be connected to."""


class Gate:
    """Makes sockets for allowed addresses, and only for those.

    Args:
        allowed: Networks that may be connected to although they are not public, e.g. ``10.1.0.0/16``.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self.allowed = [ip_network(network) for network in allowed]

    def is_open(self, host: str) -> bool:
        """Whether ``host``, an address in its usual form, may be connected to; what is no address may not."""
        try:
            address = reached(ip_address(host))
        except ValueError:
            return False
        return any(address in network for network in self.allowed) or is_public(address)

    def make_socket(self, info: AddressInfo) -> socket.socket:
        """A socket to connect to this address. Raises ForbiddenAddress."""
        family, kind, protocol, _, (host, *_) = info
        if not self.is_open(host):
            raise ForbiddenAddress(f"{host} is no public address, nor in download.fetching.allowed_networks")
        return socket.socket(family, kind, protocol)


def reached(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Who is really spoken to: the IPv4 address inside an IPv6 one that stands for it."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in NAT64:
            return IPv4Address(address.packed[-4:])
    return address


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether anybody on the internet could connect there."""
    if isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST:
        return False
    return not any(address in network for network in NOT_PUBLIC)
