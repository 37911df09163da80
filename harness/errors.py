"""Two families of errors: what the user can mend (usage), and what the lab could not do (infra)."""

from __future__ import annotations

from installers.exits import Exit


class AirlockError(Exception):
    """An error a user sees as one line: what, where, and how to mend it.

    ``hint`` says how to mend it; ``exit`` is the process's exit code.
    """

    exit = Exit.UNKNOWN

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(AirlockError):
    """Bad input: a flag, a matrix file, a policy. Exit 2."""

    exit = Exit.USAGE


class NothingToDo(AirlockError):
    """A selection that is valid and empty. Exit 4."""

    exit = Exit.NOTHING


class InfraError(AirlockError):
    """The lab or the network broke. Exit 3; never a failed check."""

    exit = Exit.UNKNOWN
