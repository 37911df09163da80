#!/bin/bash
# Makes this machine a proxy. Google's guest agent runs it at each boot; twice is as once.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

say() { echo "airlock-proxy: $*"; }

# tell KEY FILE: a guest attribute, which the machine's owner reads from outside.
tell() {
  curl -fsS --noproxy '*' --retry 5 --retry-connrefused -X PUT -H 'Metadata-Flavor: Google' \
    --data-binary "@$2" \
    "http://${GCE_METADATA_HOST:-metadata.google.internal}/computeMetadata/v1/instance/guest-attributes/@NAMESPACE@/$1"
}

failed() {
  local what="line $1 ended with $2"
  say "failed: $what"
  echo "$what" >/run/airlock-proxy-failed
  tell @FAILED@ /run/airlock-proxy-failed || true
  exit 1
}
trap 'failed "$LINENO" "$?"' ERR

if ! [ -x /usr/sbin/squid ] || ! [ -x /usr/lib/squid/security_file_certgen ]; then
  for attempt in 1 2 3; do
    if apt-get -q update && apt-get -q -y --no-install-recommends install squid-openssl openssl; then
      break
    fi
    say "apt-get failed, attempt $attempt"
    [ "$attempt" != 3 ]
    sleep 10
  done
fi

if [ @INTERCEPT@ = yes ]; then
  if ! [ -s @CERTIFICATE@ ]; then
    (
      umask 077
      work=$(mktemp -d)
      openssl req -x509 -new -newkey rsa:3072 -nodes -sha256 -days 30 -subj '/CN=Airlock proxy CA' \
        -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' \
        -addext 'keyUsage=critical,keyCertSign,cRLSign' \
        -keyout "$work/key" -out "$work/certificate" 2>/dev/null
      cat "$work/key" "$work/certificate" >"$work/both"
      mv "$work/both" @CERTIFICATE@
      rm -rf "$work"
    )
  fi
  if ! [ -d @CERTIFICATES@ ]; then
    /usr/lib/squid/security_file_certgen -c -s @CERTIFICATES@ -M 4MB
    chown -R proxy:proxy @CERTIFICATES@
  fi
fi

cat >/etc/squid/squid.conf.new <<'AIRLOCK'
@CONFIGURATION@
AIRLOCK
mv /etc/squid/squid.conf.new /etc/squid/squid.conf

/usr/sbin/squid -k parse >/dev/null 2>&1
systemctl enable squid
systemctl restart squid

# Two words over loopback: it listens. (A port probe is no request, and is not counted as one.)
for attempt in $(seq 100); do
  if (exec 3<>/dev/tcp/127.0.0.1/3128) 2>/dev/null; then
    break
  fi
  [ "$attempt" != 100 ]
  sleep 0.2
done

if [ @INTERCEPT@ = yes ]; then
  openssl x509 -in @CERTIFICATE@ -out /run/airlock-proxy-ca
  tell @CA@ /run/airlock-proxy-ca
fi
echo @SHA256@ >/run/airlock-proxy-ready
tell @READY@ /run/airlock-proxy-ready
say ready
