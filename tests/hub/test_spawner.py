"""What the hub asks the system before it believes that a server is a student's."""

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from spai_lab.hub.accounts import may_start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a hub for a class runs on Linux")


@pytest.fixture(scope="module")
def spawner():
    pytest.importorskip("jupyterhub")
    from spai_lab.hub import spawner

    return spawner


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_it_knows_who_listens(spawner, family, address):
    with socket.socket(family) as server:
        try:
            server.bind((address, 0))
        except OSError:
            pytest.skip(f"this machine has no {address}")
        port = server.getsockname()[1]
        assert spawner.listeners(port) == set(), "bound, and not yet listening"
        server.listen()
        assert spawner.listeners(port) == {os.getuid()}
    assert spawner.listeners(port) == set()


def test_a_number_that_is_anothers_process_is_no_server(spawner):
    import pwd

    me = pwd.getpwuid(os.getuid()).pw_name
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert spawner.owns(me, process.pid)
        assert not spawner.owns("nobody", process.pid) and not spawner.owns("no such account", process.pid)
    assert not spawner.owns(me, process.pid)


def test_whose_account_is_gone_starts_nothing():
    def gone(name):
        raise KeyError(name)

    ada = SimpleNamespace(name="ada", admin=False)
    assert not may_start(SimpleNamespace(check_allowed=gone), ada)
    assert not may_start(SimpleNamespace(check_allowed=lambda name: False), ada)
    assert may_start(SimpleNamespace(check_allowed=lambda name: True), ada)
