"""A shared key for servers that others on this machine could reach: shown before anything else is answered.

It keeps strangers out, it hides nothing: frames are not encrypted, and leave this machine only if something
forwards them. Torch-free.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

from robopolicy.errors import BadInput
from robopolicy.wire import Client, Handler, Message

VARIABLE = "ROBOPOLICY_KEY"
"""Environment variable that both sides read; command lines can be read by everyone."""
_SHORTEST = 16


def key_of(environment: Mapping[str, str]) -> str:
    """The key that is set, "" if none is.

    Raises:
        BadInput: if it can be guessed.
    """
    key = environment.get(VARIABLE, "")
    if key and len(key) < _SHORTEST:
        raise BadInput(VARIABLE, f"at least {_SHORTEST} characters", f"{len(key)}")
    return key


def locked(handlers: Mapping[str, Handler], key: str) -> Mapping[str, Handler]:
    """Handlers of one connection that answer once the key has been shown on it; as they are without one."""
    if not key:
        return handlers
    shown = False

    def unlock(key_shown: str) -> Message:
        nonlocal shown
        shown = hmac.compare_digest(key_shown.encode(), key.encode())
        if not shown:
            raise BadInput("key", "that of the server", "another")
        return {}

    def guarded(handler: Handler) -> Handler:
        def answer(**fields: Any) -> Message:
            if not shown:
                raise BadInput("key", f"one, as in {VARIABLE} of the server", "none")
            return handler.answer(**fields)

        return Handler(handler.schema, answer)

    guards = {name: guarded(handler) for name, handler in handlers.items()}
    return {"unlock": Handler({"key_shown": str}, unlock), **guards}


def unlock(client: Client, key: str) -> Client:
    """Shows the key, if there is one; the client.

    Raises:
        BadInput: if the server has another, or needs none.
    """
    if key:
        client.request("unlock", key_shown=key)
    return client
