#!/bin/sh
# airlock-node.pyz: a Python archive. These lines find a Python >= 3.9 to run it with, or install
# one through the proxy that the metadata names. Everything after them is the archive.
# The proxy's password is in no argument of any program: who lists processes must not see it.

say() { printf 'airlock-node: %s\n' "$1" >&2; }
die() {
    say "$2"
    exit "$1"
}

# python3-minimal lacks json; a Python that was built without OpenSSL lacks _ssl. Both are quick to
# import, and this runs at every start.
fits() {
    "$1" -I -S -c 'import sys, json, _ssl; sys.exit(sys.version_info < (3, 9))' >/dev/null 2>&1
}

find_python() {
    for python in python3 /usr/bin/python3 \
        /usr/bin/python3.[0-9][0-9] /usr/bin/python3.9 \
        /usr/local/bin/python3 /usr/local/bin/python3.[0-9][0-9] /usr/local/bin/python3.9 \
        /opt/conda/bin/python3 /opt/conda/*/bin/python3 /usr/libexec/platform-python; do
        fits "$python" && return 0
    done
    return 1
}

# The value of key $2 in the JSON of file $1: the instance's, else the project's.
from_file() {
    part='s/.*"instance"[[:space:]]*://;s/"project"[[:space:]]*:.*//'
    other='s/.*"project"[[:space:]]*://;s/"instance"[[:space:]]*:.*//'
    for cut in "$part" "$other"; do
        value=$(tr '\n' ' ' <"$1" | sed "$cut" |
            sed -n 's/.*"'"$2"'"[[:space:]]*:[[:space:]]*"\([^"]*\)".*/\1/p')
        [ -n "$value" ] && break
    done
    # JSON may write a slash as \/ and nothing else that a URL needs with a backslash.
    printf '%s' "$value" | sed 's,\\/,/,g'
}

# The same from a metadata server, which is never asked through a proxy.
from_server() {
    for level in instance project; do
        url="${1%/}/computeMetadata/v1/$level/attributes/$2"
        if command -v curl >/dev/null 2>&1; then
            value=$(curl -q -s -f -m 5 --noproxy '*' -H 'Metadata-Flavor: Google' "$url")
        elif command -v wget >/dev/null 2>&1; then
            value=$(wget -q -T 5 -t 1 --no-proxy -O - --header 'Metadata-Flavor: Google' "$url" 2>/dev/null ||
                wget -q -T 5 -Y off -O - --header 'Metadata-Flavor: Google' "$url" 2>/dev/null)
        fi
        [ -n "$value" ] && break
    done
    printf '%s' "$value"
}

attribute() {
    value=
    case $metadata in
    http://* | https://*) value=$(from_server "$metadata" "$1") ;;
    *) [ -r "$metadata" ] && value=$(from_file "$metadata" "$1") ;;
    esac
    # A template that was not filled in leaves ":", which means none.
    [ "$value" = : ] && value=
    printf '%s' "$value"
}

# Stdin: a proxy's address. Stdout: its URL.
url() {
    read -r value
    case $value in
    *[!A-Za-z0-9.:/@%_~!\$\&\(\)*+,\;=\[\]-]*)
        die 2 "the proxy's address holds a character that must be percent-encoded" ;;
    '' | *://*) ;;
    *) value="http://$value" ;;
    esac
    printf '%s' "$value"
}

set_proxy() {
    general=$(attribute proxy-uri)
    plain=$(attribute http-proxy)
    secure=$(attribute https-proxy)
    plain=${plain:-$general}
    secure=${secure:-${general:-$plain}}
    if [ -z "$plain$secure" ]; then
        plain=${http_proxy:-${HTTP_PROXY:-}}
        secure=${https_proxy:-${HTTPS_PROXY:-$plain}}
    fi
    http_proxy=$(printf '%s\n' "$plain" | url) || exit 2
    https_proxy=$(printf '%s\n' "$secure" | url) || exit 2
    HTTP_PROXY=$http_proxy HTTPS_PROXY=$https_proxy
    if [ -z "$http_proxy" ]; then unset http_proxy HTTP_PROXY; else export http_proxy HTTP_PROXY; fi
    if [ -z "$https_proxy" ]; then unset https_proxy HTTPS_PROXY; else export https_proxy HTTPS_PROXY; fi
}

# Settings of the image that name another proxy would win over the environment.
with_apt() {
    (
        umask 077
        printf 'Acquire::http::Proxy "%s";\nAcquire::https::Proxy "%s";\n' \
            "${http_proxy:-DIRECT}" "${https_proxy:-DIRECT}" >"$private/apt.conf"
    )
    export DEBIAN_FRONTEND=noninteractive
    set -- -c "$private/apt.conf" -q -y -o DPkg::Lock::Timeout=120
    apt-get "$@" update >&2 || return 1
    for package in python3 python3.9; do
        apt-get "$@" install --no-install-recommends "$package" >&2
        find_python && return 0
    done
    return 1
}

with_dnf() {
    program=$1
    configuration=/etc/dnf/dnf.conf
    [ -r "$configuration" ] || configuration=/etc/yum.conf
    (
        umask 077
        sed '/^[[:space:]]*proxy/d' "$configuration" >"$private/dnf.conf"
    ) || return 1
    for package in python3 python3.11 python39; do
        "$program" -c "$private/dnf.conf" -q -y install "$package" >&2
        find_python && return 0
    done
    return 1
}

install_python() {
    [ "$(id -u)" = 0 ] || die 1 "there is no Python >= 3.9 here; run this as root to install one"
    private=$(mktemp -d) || die 3 "no temporary directory can be made"
    trap 'rm -rf "$private"' EXIT
    trap 'exit 3' HUP INT TERM
    set_proxy
    say "there is no Python >= 3.9 here: installing python3 with the package manager"
    if command -v apt-get >/dev/null 2>&1; then
        with_apt
    elif command -v dnf >/dev/null 2>&1; then
        with_dnf dnf
    elif command -v yum >/dev/null 2>&1; then
        with_dnf yum
    else
        die 1 "there is no Python >= 3.9 here, and neither apt nor dnf to install one"
    fi || die 3 "no Python >= 3.9 could be installed; check http-proxy and the package sources"
    rm -rf "$private"
    trap - EXIT HUP INT TERM
}

if ! find_python; then
    metadata=http://169.254.169.254
    root=/
    verb=${1:-}
    previous=
    for word in "$@"; do
        case $previous in
        --metadata) metadata=$word ;;
        --root) root=$word ;;
        esac
        case $word in
        --metadata=*) metadata=${word#*=} ;;
        --root=*) root=${word#*=} ;;
        esac
        previous=$word
    done
    # Only apply may change this machine, and only when it is the one that is meant.
    if [ "$verb" != apply ] || [ "$root" != / ]; then
        die 1 "there is no Python >= 3.9 here: install python3"
    fi
    install_python
fi
exec "$python" "$0" "$@"
