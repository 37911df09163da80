"""Keys of the keyrings' tests, for every test of the lab that wants one."""

from tests.unit.installers_keyrings.conftest import keys, smith

__all__ = ["keys", "smith"]
