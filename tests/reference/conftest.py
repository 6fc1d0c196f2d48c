"""Stop at once, with one line, if the reference data is missing."""

import pytest

try:
    import tests.reference.data  # noqa: F401 - imported for its check
except FileNotFoundError as error:
    raise pytest.UsageError(str(error)) from None
