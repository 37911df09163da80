"""Secrets as a node may hold them, and every way they may be written down."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

#: Where it is planted -> the secret. Those with odd characters stand where such are allowed.
SECRETS = {
    "environment": "env-P@ss:w/rd%#1",
    "profile": "profileS3cret",
    "systemd": "systemd%S3cret",
    "apt": "apt-p@ss/w0rd",
    "apt.auth": "aptauthS3cret",
    "dnf": "dnfS3cret77",
    "conda": "condaS3cret77",
    "conda.token": "co-12345678-token",
    "pip": "pipS3cret77",
    "npm": "npmS3cret77",
    "npm.basic": "npmbasicS3cret",
    "git": "gitS3cret77",
    "git.store": "gh0_S3cretStore",
    "docker": "dockerS3cret77",
    "docker.proxy": "dockerproxyS3cret",
    "maven": "maven<&>S3cret",
    "maven.proxy": "mavenproxyS3cret",
    "gradle": "gradleS3cret",
    "wget": "wgetS3cret77",
    "curl": "curlS3cret77",
    "netrc": "netrcS3cret77",
    "kubeconfig": "kubeT0kenS3cret",
    "kubeconfig.password": "kubepwS3cret",
    "aws": "aws/S3cret+Key0123456789",
    "boto": "botoS3cret77",
    "spark": "sparkS3cret77",
    "hadoop": "hadoopS3cret77",
    "huggingface": "hugS3cret77xyz",
    "ours": 'ours"\\S3cret',
}


def _login(secret: str) -> str:
    return f"user:{quote(secret, safe='')}"


def plant(root: Path) -> dict[str, str]:
    """Write every secret below ``root``, where its program keeps it; name -> secret.

    With them a private key, whose lines are secrets too.
    """
    s = SECRETS
    url = "http://{}@proxy.test:3128"
    basic = base64.b64encode(f"user:{s['docker']}".encode()).decode()
    npm = base64.b64encode(s["npm.basic"].encode()).decode()
    files = {
        "etc/environment": f"http_proxy={url.format(_login(s['environment']))}\n",
        "etc/profile.d/p.sh": f"export https_proxy='{url.format('user:' + s['profile'])}'\n",
        "etc/systemd/system.conf.d/p.conf": "[Manager]\nDefaultEnvironment="
        f'"https_proxy={url.format(_login(s["systemd"])).replace("%", "%%")}"\n',
        "etc/apt/apt.conf.d/95proxy": f'Acquire::http::Proxy "{url.format("u:" + s["apt"])}";\n',
        "etc/apt/auth.conf.d/a.conf": f"machine deb.test login u password {s['apt.auth']}\n",
        "etc/dnf/dnf.conf": f"[main]\nproxy=http://p.test:1\nproxy_password={s['dnf']}\n",
        "root/.condarc": f"proxy_servers:\n  http: {url.format(_login(s['conda']))}\n"
        f"channels:\n  - https://conda.test/t/{s['conda.token']}/main\n",
        "etc/pip.conf": f"[global]\nindex-url = https://u:{s['pip']}@pip.test/simple\n",
        "root/.npmrc": f"//npm.test/:_authToken={s['npm']}\n//npm.test/:_password={npm}\n"
        f"//two.test/:_password={s['npm.basic']}\n",
        "root/.gitconfig": f"[http]\n\tproxy = {url.format(_login(s['git']))}\n",
        "root/.git-credentials": f"https://me:{s['git.store']}@git.test\n",
        "root/.docker/config.json": json.dumps(
            {
                "auths": {"r.test": {"auth": basic}},
                "proxies": {"default": {"httpProxy": url.format("u:" + s["docker.proxy"])}},
            }
        ),
        "root/.m2/settings.xml": "<settings><servers><server><id>a</id>"
        f"<password>{html.escape(s['maven'])}</password></server></servers><proxies><proxy>"
        f"<host>p.test</host><password>{s['maven.proxy']}</password></proxy></proxies></settings>",
        "root/.gradle/gradle.properties": f"systemProp.http.proxyPassword={s['gradle']}\n",
        "etc/wgetrc": f"http_proxy = http://p.test:1\nproxy_password = {s['wget']}\n",
        "root/.curlrc": f'proxy = "p.test:3128"\nproxy-user = "me:{s["curl"]}"\n',
        "root/.netrc": f"machine a.test login me\npassword {s['netrc']}\n",
        "home/jo/.kube/config": f"users:\n- name: jo\n  user:\n    token: {s['kubeconfig']}\n"
        f'    password: "{s["kubeconfig.password"]}"\n',
        "root/.aws/credentials": f"[default]\naws_secret_access_key = {s['aws']}\n",
        "root/.boto": f"[Boto]\nproxy = p.test\nproxy_pass = {s['boto']}\n",
        "etc/spark/conf/spark-defaults.conf": f"spark.ssl.keyPassword  {s['spark']}\n",
        "etc/hadoop/conf/core-site.xml": "<configuration><property><name>fs.x.secret.key</name>\n"
        f"<value>{s['hadoop']}</value></property></configuration>\n",
        "root/.cache/huggingface/token": s["huggingface"],
        "run/airlock/apt.conf": "",
        "etc/airlock/own.json": json.dumps({"proxy_password": s["ours"]}),
    }
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    files["etc/ssl/private/node.key"] = key.decode()
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return {**s, "private key": key.decode().splitlines()[1]}


def core(text: str, before: str, secret: str) -> str:
    """What of a base64 text says something of the secret alone, and not of its neighbours."""
    start, end = len(before) * 8, len(before.encode() + secret.encode()) * 8
    return text[-(-start // 6) : end // 6]


def spellings(secret: str) -> Iterator[tuple[str, str]]:
    """(how, text) for each way a text may hold a secret; the text is what must not remain."""
    data = secret.encode()
    yield "raw", secret
    yield "percent", quote(secret, safe="")
    yield "percent, small digits", _lower(quote(secret, safe=""))
    yield "percent, paths kept", quote(secret)
    yield "percent, all", "".join(f"%{byte:02X}" for byte in data)
    yield "percent, twice", quote(quote(secret, safe=""), safe="")
    yield "json", json.dumps(secret)[1:-1]
    yield "json in json", json.dumps(json.dumps(secret)[1:-1])[1:-1]
    yield "xml", html.escape(secret)
    yield "unit", secret.replace("%", "%%")
    yield "hex", data.hex()
    yield "utf-16", data.decode().encode("utf-16-le").decode("utf-8")
    for before in ("", "u", "us", "user:"):
        for coder in (base64.b64encode, base64.urlsafe_b64encode):
            coded = coder(before.encode() + data).decode()
            yield f"{coder.__name__} after {before!r}", core(coded, before, secret)


def _lower(text: str) -> str:
    """Percent-encoding with small hex digits; the rest stays."""
    parts = text.split("%")
    return "%".join([parts[0], *(part[:2].lower() + part[2:] for part in parts[1:])])
