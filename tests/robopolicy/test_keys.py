"""Who does not show the key is told nothing; who does is answered as if there were none."""

from __future__ import annotations

import pytest

from robopolicy.errors import BadInput
from robopolicy.keys import VARIABLE, key_of, locked, unlock
from robopolicy.wire import Client, Handler, Server

KEY = "a key of some length"


def _handlers():
    return {"add": Handler({"a": int, "b": int}, lambda a, b: {"sum": a + b})}


@pytest.fixture
def server(tmp_path):
    address = str(tmp_path / "s.sock")
    with Server(address, lambda: locked(_handlers(), KEY)):
        yield address


def test_client_with_the_key_is_answered(server):
    with Client(server) as client:
        assert unlock(client, KEY).request("add", a=1, b=2)["sum"] == 3


@pytest.mark.parametrize("key", ["", "another key of some length", KEY[:-1]])
def test_client_without_it_is_told_nothing_and_may_try_again(server, key):
    with Client(server) as client:
        with pytest.raises(BadInput, match="key"):
            unlock(client, key).request("add", a=1, b=2)
        assert unlock(client, KEY).request("add", a=1, b=2)["sum"] == 3


def test_each_connection_has_to_show_it(server):
    with Client(server) as first, Client(server) as second:
        unlock(first, KEY)
        with pytest.raises(BadInput, match="key"):
            second.request("add", a=1, b=2)


def test_without_a_key_nothing_changes():
    handlers = _handlers()
    assert locked(handlers, "") is handlers
    assert key_of({}) == ""


def test_key_that_can_be_guessed_is_refused():
    assert key_of({VARIABLE: KEY}) == KEY
    with pytest.raises(BadInput, match=VARIABLE):
        key_of({VARIABLE: "1234"})
