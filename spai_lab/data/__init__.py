"""Data sets: images in [0, 1] as `(N, C, H, W)`, split once and for all into training, validation and test.

>>> from spai_lab.data import load
>>> load("digits")
Dataset digits: 1078 train, 180 validation, 539 test; shape (1, 28, 28); 10 classes
"""

from spai_lab.data.catalog import available, default_name, load
from spai_lab.data.dataset import Dataset, Tabular
from spai_lab.data.mnist import fetch_mnist
from spai_lab.data.sources import DataUnavailable

__all__ = ["DataUnavailable", "Dataset", "Tabular", "available", "default_name", "fetch_mnist", "load"]
