#!/bin/bash
set -euo pipefail
proxy=$(curl -sSf -H 'Metadata-Flavor: Google' \
  http://metadata.google.internal/computeMetadata/v1/instance/attributes/http-proxy)
echo "the proxy is $proxy"
timeout 3 bash -c 'exec 3<>/dev/tcp/198.51.100.71/443' || true
echo "curl: (7) Failed to connect to origin.airlock.test port 443: Connection refused" >&2
exit 7
