#!/bin/bash
# What a set-up script should do: proxy and CA before anything is fetched.
set -euo pipefail

attribute() {
  curl -sSf -H 'Metadata-Flavor: Google' \
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}

proxy=http://$(attribute http-proxy)
none=localhost,127.0.0.1,169.254.169.254,metadata.google.internal
cat >>/etc/environment <<END
http_proxy=$proxy
https_proxy=$proxy
no_proxy=$none
END
export http_proxy=$proxy https_proxy=$proxy no_proxy=$none

pem=$(attribute http-proxy-pem-uri)
cp "${pem#file://}" /usr/local/share/ca-certificates/corporate.crt
update-ca-certificates

curl -sSf -o /usr/local/share/fetched https://origin.airlock.test:"$(attribute origin-port)"/
