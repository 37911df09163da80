"""The node as a whole: units, kernel log, disks."""
