import os
import signal

import pytest
from tiny_chain import forge


@pytest.fixture(scope="session")
def chain(tmp_path_factory):
    """A whole chain of tiny artefacts, and another robot's policy."""
    root = tmp_path_factory.mktemp("chain")
    before = os.getcwd()
    os.chdir(root)
    try:
        forge(root)
    finally:
        os.chdir(before)
    return root


@pytest.fixture(autouse=True)
def own_signals():
    """Verbs that serve take over Ctrl-C for the rest of their process; here it must come back."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def here(chain, monkeypatch):
    """The working directory is the chain's."""
    monkeypatch.chdir(chain)
    return chain
