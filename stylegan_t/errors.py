"""Ends that a user can cause or cure, by exit code: settings (2), data (3), a stop to be resumed (75)."""


class SettingsError(ValueError):
    """A setting or an argument is wrong; repeating the command cannot help (exit code 2)."""

    exit_code = 2


class DataError(ValueError):
    """An input file is missing, damaged or of another kind than expected (exit code 3)."""

    exit_code = 3


class TrainingDiverged(ArithmeticError):
    """A loss is no longer finite; going on cannot help, other settings may (exit code 1)."""

    exit_code = 1


class Stopped(Exception):
    """Work was interrupted after its state was saved; the same command goes on (exit code 75)."""

    exit_code = 75
