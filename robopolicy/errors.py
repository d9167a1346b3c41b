"""Errors a user can act on: each names the field, what was wanted and what came."""

from __future__ import annotations


class RoboPolicyError(Exception):
    """Base of every error this project raises on purpose."""


class BadInput(RoboPolicyError):
    """Something handed in is unusable; nothing has been written (exit code 2).

    Args:
        field: name of the argument, file or array element at fault.
        wanted: what would have been accepted.
        got: what came instead.
    """

    def __init__(self, field: str, wanted: str, got: object):
        self.field, self.wanted, self.got = field, wanted, got
        super().__init__(f"{field}: wanted {wanted}, got {got}")

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        # It has to come back from worker processes, whatever was handed in.
        return type(self), (self.field, self.wanted, str(self.got))


class Interrupted(RoboPolicyError):
    """The user pressed Ctrl-C; progress is saved and the verb resumes (exit code 130)."""
