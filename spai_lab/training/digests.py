"""SHA-256 of what determines a model: tensors and settings."""

import hashlib
import json

from torch import Tensor


def digest_tensors(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, in the order of the names given.

    >>> import torch
    >>> digest_tensors({"x": torch.zeros(2)}) == digest_tensors({"x": torch.zeros(2, 1)})
    False
    """
    content = hashlib.sha256()
    for name, tensor in tensors.items():
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        content.update(tensor.detach().cpu().contiguous().numpy())
    return content.hexdigest()


def digest_settings(settings: dict) -> str:
    """SHA-256 of what JSON can hold, whatever the order of its keys.

    >>> digest_settings({"a": 1, "b": 2}) == digest_settings({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
