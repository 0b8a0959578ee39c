"""What a user can get wrong, each with the exit code of its kind.

The command line prints such an error as one line and exits with its code; everything else is a bug
and keeps its traceback.
"""


class UserError(ValueError):
    """The input is wrong: the message names the file and says what to do, in one line.

    It may quote what a file holds: characters that a terminal would obey are shown as `?`.
    """

    exit_code = 1

    def __init__(self, message: object) -> None:
        super().__init__("".join(c if c.isprintable() else "?" for c in str(message)))


class ConfigError(UserError):
    """The command or its configuration is wrong."""

    exit_code = 2


class CheckFailed(UserError):
    """A verification ran and did not hold."""

    exit_code = 3


class Diverged(UserError):
    """Training has produced a non-finite number or has collapsed."""

    exit_code = 4
