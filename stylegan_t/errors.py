"""What a user can cause, by exit code: settings (2), data (3), a stop to be resumed (75)."""


class SettingsError(ValueError):
    """A setting or an argument is wrong; repeating the command cannot help (exit code 2)."""

    exit_code = 2


class DataError(ValueError):
    """An input file is missing, damaged or of another kind than expected (exit code 3)."""

    exit_code = 3


class Stopped(Exception):
    """Work was interrupted after its state was saved; the same command goes on (exit code 75)."""

    exit_code = 75
