"""What goes wrong in dispatching and can be no event is said through loguru, which is imported when there is something to say."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loguru import Logger

_plain = False


def say_plainly() -> None:
    """For a command at a terminal: warnings and errors, a line each on stderr, in place of loguru's own form."""
    global _plain
    _plain = True


@cache
def _logger() -> Logger:
    from loguru import logger

    if _plain:
        logger.remove()
        logger.add(sys.stderr, level="WARNING", format="{level.name}: {message}", backtrace=False, diagnose=False)
    return logger


def warn(message: str, *values: object) -> None:
    """Something could not be done, and is not needed."""
    _logger().opt(depth=1).warning(message, *values)


def report(message: str, *values: object) -> None:
    """Something could not be done, and will be tried again."""
    _logger().opt(depth=1).error(message, *values)


def report_exception(message: str, *values: object) -> None:
    """Our bug, or somebody else's, with its traceback."""
    _logger().opt(depth=1).exception(message, *values)
