#!/bin/sh
echo "Do you agree to the licence? [y/N]"
exec sleep 600
