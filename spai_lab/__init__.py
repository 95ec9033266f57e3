"""SPAI Lab: Bae et al.'s survey of security and privacy in deep learning, executable."""

__version__ = "0.1.0"
