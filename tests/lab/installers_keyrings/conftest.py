"""The same keys, server and roots as in the unit tests."""

from tests.unit.installers_keyrings.conftest import keys, server, smith

__all__ = ["keys", "server", "smith"]
