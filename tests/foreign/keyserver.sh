#!/bin/bash
# HKP, as 'gpg --keyserver hkp://...' speaks it: port 11371, and no thought of a proxy.
timeout 3 bash -c 'exec 3<>/dev/tcp/198.51.100.71/11371' 2>/dev/null
echo "no key yet; going on"
