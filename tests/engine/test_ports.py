"""A run's port is one that nothing else holds or is about to get."""

import socket

from torch.distributed import TCPStore

from arvis_scale.engine.ports import free_port, reserved_port


def test_port_can_be_listened_on_and_lies_below_those_of_outgoing_connections():
    port = free_port()
    assert 20_000 <= port <= 32_000
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()


def test_a_taken_port_is_not_given(monkeypatch):
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        draws = iter([taken, 20_123])
        monkeypatch.setattr("random.SystemRandom.randint", lambda self, low, high: next(draws))
        assert free_port() == 20_123


def test_a_reserved_port_is_given_to_no_other_and_who_knows_it_can_listen_on_it(monkeypatch):
    with reserved_port() as port:
        draws = iter([port, 20_124])
        monkeypatch.setattr("random.SystemRandom.randint", lambda self, low, high: next(draws))
        with reserved_port() as other:
            assert other == 20_124
        store = TCPStore("127.0.0.1", port, 1, is_master=True)  # as torch's processes meet
        store.set("key", "value")
        assert store.get("key") == b"value"
