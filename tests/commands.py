"""Commands as a user calls them, in this process."""

from collections.abc import Callable
from typing import Any

import pytest


def exit_code(main: Callable[..., Any], *arguments: object) -> int:
    """Return the exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code
