"""What can go wrong for a user: each error is one line that names the value and the remedy, and an exit code."""

from __future__ import annotations


class TddsrError(Exception):
    """Whatever this package raises on purpose; ``exit_code`` is that of the command."""

    exit_code = 1


class UsageError(TddsrError, ValueError):
    """An option or argument that cannot be: out of range, unknown, or against another one."""

    exit_code = 2


class ImageError(TddsrError, ValueError):
    """A file that cannot be read or written as a picture; the message is one line that names the file."""


class ImageWarning(RuntimeWarning):
    """Something of a picture was left out or mended; the message says what."""


class ModelError(TddsrError, ValueError):
    """A model that is unknown, or whose file cannot be used, with the reason."""

    exit_code = 2


class WeightsError(ModelError):
    """Weights that cannot be had or used; the message says what to do."""

    exit_code = 1


class DownloadError(WeightsError):
    """A file from the network that cannot be had: the network is down, or the file is not the published one."""


class RecipeError(UsageError):
    """A recipe that cannot be used, with the reason."""


class DataError(TddsrError, ValueError):
    """Photos, kept targets or fonts that cannot be trained on, with the reason."""


class TrainingError(TddsrError, RuntimeError):
    """A run that cannot go on, with the reason and what is left of it."""


class MethodUnavailableError(TddsrError, ValueError):
    """A method of scoring that is known but lacks its weights, its package or its pictures; the message says how."""


class ResultError(TddsrError, ValueError):
    """A folder of scores that cannot be read, or not be gone on with, with the reason."""
