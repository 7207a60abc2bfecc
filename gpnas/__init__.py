"""gpnas: neural architecture search for object detectors over the gradient-path design space."""

__version__ = "0.1.0"
