"""Every tool that must know the proxy was told, not only those that are checked one by one."""

from __future__ import annotations

from urllib.parse import urlsplit

from harness.checks import check, fact, fail, proxy_tools
from harness.node import Node

# These name no proxy of their own: sudo lets variables through, a unit reads the file of services,
# and pip's own setting is emptied, because with it pip would heed no no_proxy.
_INDIRECT = {"sudo": "https_proxy", "unit": "/etc/airlock/proxy.env", "pip": "proxy"}
# A wrong setting of one of these is this check's to find as well, and theirs to explain.
_CHECKED_ALONE = ("environment", "profile", "systemd-manager", "apt", "curl", "wget", "git", "pip")


@check(
    id="proxy.every-tool",
    severity="major",
    title="Every tool on the node that must know the proxy has its setting",
    remedy="Run 'airlock-node.pyz plan --only proxy': it names the tool and the file. A tool that "
    "was installed later is told at the next boot.",
    requires=proxy_tools,
    depends=[f"proxy.{name}" for name in _CHECKED_ALONE],
    source="the file that the installer wrote for each tool, read again after the boot",
)
def test_every_tool(node: Node) -> None:
    """By the proxy's host and port, which the file of every tool spells the same."""
    tools = fact(node, "proxy.tools")
    proxy = urlsplit(node.expect["proxy_url_redacted"])
    wrong = []
    for name in node.expect["proxy_tools"]:
        told = tools.get(name)
        if told is None:
            wrong.append(f"{name}: was not told")
            continue
        found = " ".join(told["refers"] or told["proxies"])
        indirect = _INDIRECT.get(name.partition(" ")[0])
        if indirect not in found.split() if indirect else found != proxy.netloc:
            wrong.append(f"{name}: {told['path']} names {found or 'no proxy'}")
    if wrong:
        fail(f"{len(wrong)} tools do not know the proxy", wrong)
