"""What every provider owes the harness."""

import pytest

pytest.register_assert_rewrite("tests.unit.providers.contract")
