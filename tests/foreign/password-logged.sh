#!/bin/bash
exec > >(tee -a /var/log/set-up.log) 2>&1
set -x
proxy=$(curl -sSf -H 'Metadata-Flavor: Google' \
  http://metadata.google.internal/computeMetadata/v1/instance/attributes/http-proxy)
export http_proxy=$proxy
