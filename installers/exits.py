"""Exit codes, shared by ``airlock`` and ``airlock-node.pyz``."""

import enum


class Exit(enum.IntEnum):
    """What a process of ours says with its exit status. Never a count."""

    PASS = 0
    FAIL = 1  # the node or image fails
    USAGE = 2  # usage or configuration error
    UNKNOWN = 3  # could not tell: infrastructure or harness error
    NOTHING = 4  # nothing ran
    WAIVED = 77  # everything passed but for waived failures, with --strict-waivers
