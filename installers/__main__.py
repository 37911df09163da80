"""Entry point of ``airlock-node.pyz`` and of ``python3 -m installers``."""

import sys

from installers.cli import main

if __name__ == "__main__":
    sys.exit(main())
