"""Errors of the node side. Each says what is wrong, where, and how to mend it."""

from __future__ import annotations

from collections.abc import Sequence

from installers.exits import Exit


class NodeError(Exception):
    """Something on this node is not right; one line for the user, never a traceback.

    ``what`` is wrong, ``where`` (a metadata key, a file, a command), ``remedy`` how to mend it.
    ``exit`` is the exit code of the process. None of the three may hold a secret.
    """

    exit = Exit.FAIL

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.remedy}" if self.remedy else text


def describe_defect(error: BaseException) -> str:
    """An unexpected error of ours in one line, with the place instead of a traceback."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename.rpartition("/")[2]
        place = f" at {file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}{place}: {error}"


class ConfigError(NodeError):
    """The metadata or the command line is wrong. Exit 2."""

    exit = Exit.USAGE


class UnreachableError(NodeError):
    """Something the node needs did not answer: metadata server, proxy, object store. Exit 3."""

    exit = Exit.UNKNOWN


class CommandError(NodeError):
    """A program failed. ``argv``, ``code`` (None: killed by its time limit), ``out``, ``err``.

    All texts are redacted before they come here.
    """

    def __init__(
        self, argv: Sequence[str], code: int | None, out: str, err: str, *, remedy: str = ""
    ) -> None:
        self.argv = list(argv)
        self.code = code
        self.out = out
        self.err = err
        how = "ran into its time limit" if code is None else f"exited {code}"
        last = [line.strip() for line in (err or out).splitlines() if line.strip()][-3:]
        said = f": {' | '.join(last)}" if last else ""
        super().__init__(f"{how}{said}", where=" ".join(self.argv[:6]), remedy=remedy)
