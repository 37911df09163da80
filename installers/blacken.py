"""Takes secrets out of what leaves a node: those that were found on it, however they are spelled,
and whatever looks like one.

A known secret is looked for raw, percent-encoded, escaped as in JSON, XML and shell (any mixture of
these, character by character), in hex, and in base64 at each of its three alignments. What nobody
knows is found by its surroundings: URLs with a login, private keys, values of keys whose names say
what they are, tokens by their prefixes. Rather too much is taken out than too little.
"""

from __future__ import annotations

import base64
import html
import re
import string
from collections.abc import Iterable, Iterator
from typing import Any, Optional
from urllib.parse import quote

from installers.redact import HIDDEN

#: Shorter ones would take whole words out of every text; where they stand beside their name or in
#: a URL they are still hidden.
SHORTEST = 4
_SHORTEST_NUMBER = 6
_SHORTEST_IN_KEYS = 8
_QUOTE = r"\\*[\"']?"
_NAMED = (
    *("passw", "passphrase", "passcode", "proxy_pass", "secret", "token", "api_key", "api-key"),
    *("apikey", "access_key", "access-key", "accesskey", "private_key", "private-key"),
    *("privatekey", "client-key-data", "credential", "pwd", "_auth"),
)
_NAME = (
    r"(?:passw(?:or)?d|passphrase|passcode|proxy_pass|secret(?:[_-]?(?:access[_-]?)?key)?|token"
    r"|api[_-]?key|access[_-]?key|private[_-]?key|client-key-data|credentials?|pwd|_auth)"
)
_PREFIXES = {
    "eyj": r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*",
    **dict.fromkeys(("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"gh[pousr]_\w{20,}"),
    "github_pat_": r"github_pat_\w{20,}",
    "glpat-": r"glpat-[\w-]{16,}",
    "hf_": r"hf_\w{20,}",
    "nvapi-": r"nvapi-[\w-]{20,}",
    "akia": r"AKIA[0-9A-Z]{16}",
    "aiza": r"AIza[\w-]{30,}",
    "ya29.": r"ya29\.[\w-]{20,}",
    "xox": r"xox[abprs]-[\w-]{10,}",
    "npm_": r"npm_\w{30,}",
    "pypi-": r"pypi-[\w-]{40,}",
    "dckr_pat_": r"dckr_pat_[\w-]{20,}",
    "sk-": r"sk-[\w-]{20,}",
}
# What a match begins with, in lower case, and the expression: its group "secret" is what is hidden,
# and none goes beyond a NUL (see Blackener.value). Words are found ten times as fast.
_PATTERNS: tuple[tuple[tuple[str, ...], str], ...] = (
    # The login of a URL. A raw password may hold a slash and an @, but a colon stands before it.
    (
        ("://", ":\\/"),
        r":(?:\\*/){2}(?P<secret>[^\s/\"'<>:@\0]*:[^\s\"'<>\0]*(?=@)|[^\s/\"'<>\0]*(?=@))@",
    ),
    (("%3a%2f%2f",), r"%3A%2F%2F(?P<secret>[^\s\"'<>&\0]*?)%40"),
    (
        ("-----begin ",),
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----(?P<secret>[^\0]*?)"
        r"(?:-----END [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----|(?=\0)|\Z)",
    ),
    (
        ("authorization",),
        rf"authorization{_QUOTE}\s*[:=]\s*{_QUOTE}(?:[a-z]+\s+)?(?P<secret>[^\s\"'\\,\0]+)",
    ),
    (("bearer ", "basic "), r"\w+\s+(?P<secret>[a-z0-9+/=._~-]{12,})"),
    (
        _NAMED,
        rf"{_NAME}{_QUOTE}[ \t]{{0,3}}(?:=>|[:=])[ \t]{{0,3}}{_QUOTE}"
        r"(?P<secret>[^\s\"'\\<>,;&\0]+)",
    ),
    (_NAMED, rf"(?<=-){_NAME}[ =]+{_QUOTE}(?P<secret>[^\s\"'\\\0]+)"),
    (_NAMED, rf"{_NAME}[\w.-]*>(?P<secret>[^<\n\0]+)<"),
    (
        ("--proxy-user", "--user", " -u"),
        r"\s?-[\w-]+[ =]+[\"']?(?P<secret>[^\s:\"'\0]+:[^\s\"'\0]+)",
    ),
    (("/t/",), r"/t/(?P<secret>[\w-]{6,})(?=/)"),
    (
        tuple(f"{mark}{name}" for mark in "?&" for name in ("sig", "x-amz-", "x-goog-")),
        r".(?:sig|signature|x-\w+-(?:signature|credential|security-token))="
        r"(?P<secret>[^&\s\"'<>\0]+)",
    ),
    *(((word,), rf"(?<!\w)(?P<secret>{form})") for word, form in _PREFIXES.items()),
)
PATTERNS = tuple((words, re.compile(form, re.IGNORECASE)) for words, form in _PATTERNS)
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_SECRET_KEY = re.compile(_NAME, re.IGNORECASE)
# Keys of objects that are ours; a node's own text (a path, an address) does not look like this.
_OUR_KEY = re.compile(r"[a-z][a-z0-9_]{0,31}")
_PLAIN = re.compile(r"[A-Za-z0-9_.-]")
_BASE64_LEAST = 6


def worth_hiding(secret: str) -> bool:
    """Whether a value can be taken out wherever it stands: a word like ``on`` cannot."""
    least = _SHORTEST_NUMBER if secret.isdigit() else SHORTEST
    return len(secret) >= least and secret != HIDDEN


def looks_secret(text: str) -> Iterator[re.Match[str]]:
    """What looks like a secret in a text; the group ``secret`` is it."""
    lower = text.translate(_LOWER)
    for words, pattern in PATTERNS:
        for word in words:
            place = lower.find(word)
            while place >= 0:
                match = pattern.match(text, place)
                if match is not None and match.group("secret"):
                    yield match
                place = lower.find(word, place + 1)


class Blackener:
    """Takes ``secrets`` and whatever looks like one out of texts. ``count``: how many it took."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if worth_hiding(secret)}
        self._secrets = sorted(known, key=len, reverse=True)
        literals = {form for secret in known for form in _literals(secret)}
        # Longest first: a shorter form may be part of a longer one.
        self._literals = sorted(literals, key=len, reverse=True)
        self._spelled = [spelled for secret in self._secrets if (spelled := _spelled(secret))]
        self.count = 0

    def text(self, text: str) -> str:
        """``text`` with ``***`` in place of each secret."""
        for literal in self._literals:
            if literal in text:
                self.count += text.count(literal)
                text = text.replace(literal, HIDDEN)
        for spelled in self._spelled:
            text, taken = spelled.subn(HIDDEN, text)
            self.count += taken
        return self._hidden(text)

    def value(self, value: Any) -> Any:
        """The same for every text in a JSON-able value, its objects' keys too.

        All texts are looked through as one, which is ten times as fast as one after the other.
        """
        texts: dict[str, None] = {}
        _gather(value, texts)
        before = list(texts)
        after = self.text("\0".join(before)).split("\0")
        if len(after) != len(before):
            after = [self.text(text) for text in before]
        # strict= came with Python 3.10
        return self._rebuilt(value, dict(zip(before, after)))  # noqa: B905

    def _hidden(self, text: str) -> str:
        """``text`` without what looks like a secret."""
        parts, at = [], 0
        for start, end in sorted(match.span("secret") for match in looks_secret(text)):
            # Taken before, or a part of what was.
            if end <= at or text[start:end] in (HIDDEN, f"{HIDDEN}:{HIDDEN}"):
                continue
            parts += [text[at:start] if start >= at else "", HIDDEN]
            at, self.count = end, self.count + 1
        return "".join([*parts, text[at:]])

    def _rebuilt(self, value: Any, texts: dict[str, str], key: str = "") -> Any:
        if isinstance(value, str):
            if key and value and value != HIDDEN and _SECRET_KEY.fullmatch(key):
                self.count += 1
                return HIDDEN
            return texts[_clean(value)]
        if isinstance(value, dict):
            return {
                self._key(str(name), texts): self._rebuilt(item, texts, str(name))
                for name, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self._rebuilt(item, texts) for item in value]
        return value

    def _key(self, key: str, texts: dict[str, str]) -> str:
        """A key; one of ours stays although a word of it is somebody's password."""
        if _OUR_KEY.fullmatch(key):
            secret = (s for s in self._secrets if len(s) >= _SHORTEST_IN_KEYS and s in key)
            return HIDDEN if next(secret, None) else key
        return texts[_clean(key)]


def _clean(text: str) -> str:
    """Without NULs: UTF-16 read as UTF-8 becomes readable, and a NUL is what we join by."""
    return text.replace("\0", "")


def _gather(value: Any, texts: dict[str, None]) -> None:
    if isinstance(value, str):
        texts[_clean(value)] = None
    elif isinstance(value, dict):
        for key, item in value.items():
            texts[_clean(str(key))] = None
            _gather(item, texts)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _gather(item, texts)


def _literals(secret: str) -> set[str]:
    """Spellings of the whole secret: raw, hex, all percent-encoded or ``\\u``-escaped, base64."""
    data = secret.encode("utf-8", "surrogateescape")
    found = {secret, data.hex(), data.hex().upper()}
    found |= {"".join(f"%{byte:02{case}}" for byte in data) for case in "xX"}
    found |= {"".join(f"\\u{ord(c):04{case}}" for c in secret) for case in "xX"}
    escaped = (quote(secret, safe=""), html.escape(secret), secret.replace("\\", "\\\\"))
    for text in {secret, *escaped, escaped[-1].replace('"', '\\"')}:
        found |= _base64(text.encode("utf-8", "surrogateescape"))
    return found


def _base64(data: bytes) -> set[str]:
    """What is the same of its base64 whatever stands before and after it, in both alphabets."""
    found = set()
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + data).decode()
        start, end = -(-shift * 8 // 6), (shift + len(data)) * 8 // 6
        if end - start >= _BASE64_LEAST:
            stable = coded[start:end]
            found |= {stable, stable.replace("+", "-").replace("/", "_")}
    return found


def _spelled(secret: str) -> Optional[re.Pattern[str]]:
    """A pattern for every mixture of escapes; None where no character needs any."""
    if all(_PLAIN.fullmatch(character) for character in secret):
        return None
    return re.compile("".join(_character(character) for character in secret))


def _character(character: str) -> str:
    if _PLAIN.fullmatch(character):
        return re.escape(character)
    data = character.encode("utf-8", "surrogateescape")
    percent = "".join(f"%(?:25)*(?i:{byte:02x})" for byte in data)
    ways = [
        percent,
        rf"\\+u(?i:{ord(character):04x})",
        rf"&(?:amp;)*#(?:0*{ord(character)}|x(?i:0*{ord(character):x}));",
        rf"\\{{0,8}}{re.escape(character)}",
    ]
    named = html.escape(character)
    if named != character:
        ways.insert(0, f"&(?:amp;)*{named[1:]}")
    if character == "'":
        ways.insert(0, r"'\\''")
    if character == "%":
        ways.append("%%")
    return f"(?:{'|'.join(ways)})"
