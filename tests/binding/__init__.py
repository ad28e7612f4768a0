"""From the WAL's rows to models and their values, on a real server."""

import pytest

pytest.register_assert_rewrite("tests.binding.comparing")
