"""What tests share lies beside this file, whatever folder they are in: ``reference``
(numbers, laws), ``cases`` (the registry)."""

import pytest

pytest.register_assert_rewrite("cases", "console", "reference", "trainings", "variational")
