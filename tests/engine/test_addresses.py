"""What the processes of a run say to each other stays on the network that reaches them."""

import socket

import pytest

from arvis_scale.engine.addresses import LOOPBACK, address_of, bound_to, interface_of, own_address_towards


def test_processes_of_one_machine_are_bound_to_its_loopback():
    name = interface_of(LOOPBACK)
    assert name in [name for _, name in socket.if_nameindex()]
    assert bound_to(LOOPBACK) == {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"}
    assert own_address_towards(LOOPBACK) == LOOPBACK


def test_an_address_of_another_machine_binds_nothing():
    assert bound_to("192.0.2.1") == {}


def test_a_node_whose_name_does_not_resolve_is_found_by_the_address_that_slurm_has(tmp_path, monkeypatch):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/sh\necho "NodeName=$4 Arch=x86_64 NodeAddr=127.0.0.9 NodeHostName=$4"\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert address_of("no-such-node.invalid") == "127.0.0.9"
    scontrol.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(OSError):
        address_of("no-such-node.invalid")
