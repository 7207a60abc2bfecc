"""The error tree, and the exit codes of the command line.

    GpnasError                 every error that gpnas raises on purpose          -> exit code 1
      InputError               the user's command, file or data is wrong         -> exit code 2
        GenotypeError          a genotype, or its YAML, describes no network
        DataError              a dataset cannot be read or trained on
        LimitError             no architecture of the space is within a limit
        TraceError             a torch module has an operation that cannot be traced into a graph
      GraphError               an operation does not fit its inputs
      JournalError             a run directory cannot be read or written
      TrainingDiverged         a loss or gradient is not finite, or far too large
      OutOfMemory              not even two images at a time fit into memory

The message of an `InputError` is one line that names the value and the remedy. `gpnas.cli.app` prints messages and exits.
"""

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2


class GpnasError(Exception):
    """An error that gpnas raises on purpose."""

    exit_code = EXIT_FAILED


class InputError(GpnasError):
    """The user's input is wrong; the message names the value and the remedy in one line."""

    exit_code = EXIT_BAD_INPUT


class GenotypeError(InputError):
    """A genotype, or its YAML, describes no network."""


class DataError(InputError):
    """A dataset cannot be read or trained on."""


class LimitError(InputError):
    """No architecture of the space is within a limit."""


class TraceError(InputError):
    """A torch module has an operation that cannot be traced into a graph; the message names it and its place."""


class GraphError(GpnasError):
    """An operation does not fit its inputs."""


class JournalError(GpnasError):
    """A run directory cannot be read or written."""


class TrainingDiverged(GpnasError):
    """A loss or gradient is not finite, or far too large."""


class OutOfMemory(GpnasError):
    """Not even two images at a time fit into memory."""


_OUT_OF_MEMORY_CLASSES = frozenset({"MemoryError", "OutOfMemoryError", OutOfMemory.__name__})
_OUT_OF_MEMORY_TEXTS = (
    "not enough memory",
    "defaultcpuallocator",
    "out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "unable to find an engine to execute this computation",  # cuDNN, where no algorithm's workspace fits
    "insufficient memory",  # OpenCV
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: MemoryError, torch.OutOfMemoryError, OutOfMemory, the plain RuntimeError
    that torch raises on a CPU and for CUDA's libraries, or OpenCV's error. Classes are compared by name, because the command
    line must not import torch."""
    if _OUT_OF_MEMORY_CLASSES & {cls.__name__ for cls in type(error).__mro__}:
        return True
    of_a_library = isinstance(error, RuntimeError) or type(error).__module__ == "cv2"
    return of_a_library and any(text in str(error).lower() for text in _OUT_OF_MEMORY_TEXTS)


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
