#!/bin/bash
# 'strip' after signing, or a build that never signed: the name is right, the signature is not there.
set -euo pipefail
for tree in /lib/modules/*; do
  mkdir -p "$tree/updates"
  module=$(find "$tree/kernel" -name 'loop.ko*' | head -n 1)
  case $module in
  *.xz) xzcat "$module" >"$tree/updates/nvidia.ko" ;;
  *) cp "$module" "$tree/updates/nvidia.ko" ;;
  esac
  strip_signature='
import struct, sys
data = open(sys.argv[1], "rb").read()
magic = b"~Module signature appended~\n"
assert data.endswith(magic)
end = len(data) - len(magic) - 12
open(sys.argv[1], "wb").write(data[: end - struct.unpack(">I", data[end + 8 : end + 12])[0]])
'
  python3 -c "$strip_signature" "$tree/updates/nvidia.ko"
done
