"""What can go wrong, as one small hierarchy.

Every message says what was given, why it fails and what to type next, in one line: the command line prints it
and exits with 2, so a message is an interface.
"""


class AlignXError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(AlignXError, ValueError):
    """A config file, an option or a combination of them that cannot be run."""


class DataError(AlignXError, ValueError):
    """A data file that is missing, malformed, empty or too small for its splits."""


class ModelError(AlignXError, ValueError):
    """A base model that cannot be resolved, loaded or adapted."""


class TrainingError(AlignXError, RuntimeError):
    """Training that cannot go on, such as a loss that is not finite."""


class ArtifactError(AlignXError, ValueError):
    """A file of a run directory that is missing, damaged or made for something else."""


class DialError(AlignXError, ValueError):
    """An axis weight, floor or strength outside what it may be."""


class JudgeError(AlignXError, RuntimeError):
    """A judge that can answer nothing at all: a refused key, an unknown model, no quota, an option it will not take."""
