"""What ssh and sudo say when they let nobody in, and what a person can do about it.

ssh has one exit status for all of it (ssh(1), EXIT STATUS), so its words are all there is. Those
below are OpenSSH's (sshconnect.c, sshconnect2.c, readconf.c) and sudo's (plugins/sudoers/auth).
"""

from __future__ import annotations

import re

#: How what is said of a host key begins: that never gets better by itself.
HOST_KEY = "its host key is"
#: (what is said, in other words, how to mend it); the first that fits counts. ``{}`` in the words
#: is what the parentheses of the pattern matched.
_TABLE = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED(?:.*?Offending \S+ key in (\S+))?",
        f"{HOST_KEY} another than the one that is known ({{}}): nothing was sent",
        "made anew? Then `ssh-keygen -R HOST`, and compare the new key's fingerprint. If not, "
        "somebody may be in between",
    ),
    (
        r"Host key verification failed|authenticity of host .* can't be established",
        f"{HOST_KEY} not known: nothing was sent",
        "log in once with ssh, and compare the fingerprint with the machine's own",
    ),
    (
        r"(\S+): Permission denied \(([^)]*)\)|Too many authentication failures",
        "the machine lets nobody in with our key ({})",
        "which keys are offered: ssh-add -l, IdentityFile in ~/.ssh/config. No password is asked",
    ),
    (
        r"sudo: a password is required|sudo: a terminal is required|sudo: no tty present",
        "sudo asks for a password there, and nobody can type one",
        "a line with NOPASSWD in its sudoers, or log in as root",
    ),
    (
        r"is not in the sudoers file|may not run sudo",
        "its user may not use sudo",
        "a line in its sudoers, or log in as root",
    ),
    (
        r"sudo: (?:command )?not found|env: \W?sudo\W?: No such file",
        "it has no sudo",
        "log in as root: ssh://root@HOST",
    ),
    (r"Could not resolve hostname (\S+?):", "it has no address ({})", "is the name right?"),
    (
        r"(Connection timed out|Connection refused|No route to host|Network is unreachable)",
        "it cannot be reached ({})",
        "is it up, is sshd running, and is the port right?",
    ),
    (
        r"(Connection (?:reset|closed) by [^\n]*|Broken pipe|client_loop: [^\n]*)",
        "the connection ended ({})",
        "run it again: the machine was not changed",
    ),
    (
        r"(No space left on device)",
        "it has no room left ({})",
        "make room in its /tmp, or in memory",
    ),
)


def explained(said: str) -> tuple[str, str] | None:
    """(what is wrong, how to mend it) for the standard error of an ssh that got nowhere, or None.

    ``said`` is shown to people by the caller: it may hold whatever the other side sent.
    """
    for pattern, words, remedy in _TABLE:
        found = re.search(pattern, said, re.DOTALL)
        if found:
            detail = ", ".join(filter(None, found.groups()))
            return words.format(detail).replace(" ()", ""), remedy
    return None
