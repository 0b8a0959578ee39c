"""What a user can get wrong, each with the exit code of its kind.

The command line prints such an error as one line and exits with its code; everything else is a bug
and keeps its traceback.
"""


class UserError(ValueError):
    """The input is wrong: the message names the file and says what to do."""

    exit_code = 1


class ConfigError(UserError):
    """The command or its configuration is wrong."""

    exit_code = 2


class CheckFailed(UserError):
    """A verification ran and did not hold."""

    exit_code = 3


class Diverged(UserError):
    """Training has produced a non-finite number or has collapsed."""

    exit_code = 4
