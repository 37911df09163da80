"""Whether this machine's clock is kept right by somebody."""

from __future__ import annotations

import ctypes

#: More than struct timex has anywhere (208 bytes on 64-bit Linux); all zero asks and sets nothing.
_TIMEX = 512
#: adjtimex(2), RETURN VALUE: "the system clock is not synchronized to a reliable server".
_TIME_ERROR = 5


def synchronised() -> bool:
    """What the kernel was told by NTP's daemon; False as well where it cannot be asked."""
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    if adjtimex is None:
        return False
    state = int(adjtimex(ctypes.create_string_buffer(_TIMEX)))
    return state not in (-1, _TIME_ERROR)
