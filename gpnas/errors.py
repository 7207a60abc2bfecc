"""The error tree and the exit codes of the command line.

    GpnasError                 anything gpnas raises on purpose
      InputError               the user's command, file or data is wrong        -> exit code 2
        GenotypeError          a genotype that cannot be built
        DataError              a dataset that cannot be trained on
        LimitError             a limit that nothing in the space can meet
      GraphError               an operation that does not fit its inputs
      JournalError             a run directory that cannot be read or written   -> exit code 1
      TrainingDiverged         a loss or gradient that is not finite, or far too large
      OutOfMemory              a batch of two images that does not fit into memory

An `InputError` is one line that names the value and the remedy; `cli.py` prints it and stops.
"""

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2


class GpnasError(Exception):
    """Anything that gpnas raises on purpose."""

    exit_code = EXIT_FAILED


class InputError(GpnasError):
    """The user's input is wrong; the message names the value and the remedy in one line."""

    exit_code = EXIT_BAD_INPUT


class GenotypeError(InputError):
    """A genotype, or its YAML, that describes no network."""


class DataError(InputError):
    """A dataset that cannot be trained on."""


class LimitError(InputError):
    """A limit that no architecture of the space can meet."""


class TraceError(InputError):
    """A network with an operation before a layer that the analysis does not know; it is named with its place."""


class GraphError(GpnasError):
    """An operation that does not fit its inputs."""


class JournalError(GpnasError):
    """A run directory that cannot be read or written."""


class TrainingDiverged(GpnasError):
    """A loss or gradient that is not finite, or far too large."""


class OutOfMemory(GpnasError):
    """Not even two images at a time fit into memory."""


_OUT_OF_MEMORY_CLASSES = frozenset({"MemoryError", "OutOfMemoryError", OutOfMemory.__name__})
_OUT_OF_MEMORY_TEXTS = ("not enough memory", "defaultcpuallocator", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's, a GPU's (torch.OutOfMemoryError), or torch's on a CPU, a plain RuntimeError.

    Classes are compared by name, because the command line must not import torch.
    """
    if _OUT_OF_MEMORY_CLASSES & {cls.__name__ for cls in type(error).__mro__}:
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _OUT_OF_MEMORY_TEXTS)
