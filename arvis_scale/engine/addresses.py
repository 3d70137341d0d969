"""Addresses of a cluster's nodes: what a name means, and through which interface of this node it is reached."""

from __future__ import annotations

import re
import socket
import subprocess

import psutil

LOOPBACK = "127.0.0.1"
# Nothing is sent to it: a datagram socket that is "connected" only chooses a route.
_ANY_PORT = 9


def address_of(node: str) -> str:
    """Return the IPv4 address of a node by its name, asking Slurm where the name does not resolve.

    Raises `OSError` when neither knows it.
    """
    try:
        return socket.gethostbyname(node)
    except socket.gaierror:
        shown = subprocess.run(
            ["scontrol", "show", "node", "--oneliner", node], capture_output=True, text=True, check=False
        )
        found = re.search(r"\bNodeAddr=(\S+)", shown.stdout)
        if found is None or found[1] == node:
            raise
        return socket.gethostbyname(found[1])


def own_address_towards(address: str) -> str:
    """Return this node's own address on the network that reaches `address`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, _ANY_PORT))
        return str(probe.getsockname()[0])


def bound_to(address: str) -> dict[str, str]:
    """Return the variables that keep gloo and NCCL to the network of this node's own `address`."""
    interface = interface_of(address)
    return {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": f"={interface}"} if interface else {}


def interface_of(address: str) -> str | None:
    """Return the network interface of this node that has `address`; None where none does."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.family == socket.AF_INET and entry.address == address for entry in addresses):
            return name
    return None
