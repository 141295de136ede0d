"""Ends that a user can cause or cure, by exit code.

0 is success, 2 wrong settings, 3 wrong data, 75 a stop to be resumed, 1 anything else. Whoever repeats commands can
tell from it whether that helps: 75 always (with the same command), 2 and 3 never, 1 perhaps.
"""


class Ended(Exception):
    """Why a command ended, in one line that needs no traceback."""

    exit_code: int


class SettingsError(Ended, ValueError):
    """A setting or an argument is wrong; repeating the command cannot help (exit code 2)."""

    exit_code = 2


class DataError(Ended, ValueError):
    """An input file is missing, damaged or of another kind than expected (exit code 3)."""

    exit_code = 3


class TrainingDiverged(Ended, ArithmeticError):
    """A loss is no longer finite; going on cannot help, other settings may (exit code 1)."""

    exit_code = 1


class NotSaved(Ended, OSError):
    """A state could not be written, e.g. to a full disk; once that is cured, the same command goes on (exit code 1)."""

    exit_code = 1


class PeerLost(Ended, RuntimeError):
    """Another process of the same training ended, so that this one cannot go on (exit code 1)."""

    exit_code = 1


class LoaderLost(Ended, RuntimeError):
    """A process that loads images for a training was killed; the same command goes on (exit code 1)."""

    exit_code = 1


class WorkerLost(Ended, RuntimeError):
    """A process or machine that worked on a part of a stage was lost, several times (exit code 1)."""

    exit_code = 1


class Unreachable(Ended, OSError):
    """A server, or the way to it, failed several times; the same command goes on later (exit code 1)."""

    exit_code = 1


class InUse(Ended, RuntimeError):
    """Another process does the same work now; repeating the command later can help (exit code 73)."""

    exit_code = 73


class Stopped(Ended):
    """Work was interrupted after its state was saved; the same command goes on (exit code 75)."""

    exit_code = 75
