#!/bin/bash
set -euo pipefail
address=$(curl -sSf -H 'Metadata-Flavor: Google' \
  http://metadata.google.internal/computeMetadata/v1/instance/attributes/http-proxy)
curl -sS -o /dev/null -x "http://$address" http://origin.airlock.test/
sleep 0.2
echo "http_proxy=http://$address" >>/etc/environment
