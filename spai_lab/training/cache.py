"""The user's cache of trained models: whoever asks twice for the same training waits once."""

import json
import warnings
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from spai_lab.checks import check_choice, check_count, check_flag, describe
from spai_lab.data import Dataset, load
from spai_lab.files import cache_folder, write_atomically
from spai_lab.models import VICTIMS
from spai_lab.training.digests import digest_settings, digest_tensors
from spai_lab.training.loop import History
from spai_lab.training.recipes import REFERENCE, Recipe, Robustly, built, fingerprint, train

TRAINING_VERSION = 1  # raise it when the same settings begin to give another model


def trained(
    name: str, dataset: Dataset | str, *, seed: int = 0, progress: bool = True, **settings: object
) -> nn.Module:
    """A victim trained as asked: from the user's cache, else trained and kept there.

    Args:
        name: "softmax", "mlp", "lenet" or "madry"; or "lenet-robust", adversarially trained.
        dataset: the data, or what `load` calls it.
        seed: starts the generator of first weights, shuffling and perturbation.
        progress: show a bar where there is something to train.
        **settings: fields of `Recipe` that shall differ from the reference model's, such as `epochs=3` or
            `perturb=Adversarial(0.1, steps=5, step_size=0.05)` or `objective=Robustly(trades, eps=0.3)`.
    Returns:
        the model, in evaluation mode. An interrupted training goes on where it was.
    Raises:
        ValueError: names the argument.
        spai_lab.data.DataUnavailable: the data is not there.
    """
    check_choice("name", name, tuple({*VICTIMS, *(name for name, _ in REFERENCE)}))
    check_count("seed", seed, low=0)
    check_flag("progress", progress)
    data = load(dataset) if isinstance(dataset, str) else dataset
    if not isinstance(data, Dataset):
        raise ValueError(f"dataset is {describe(data)}; accepted: a Dataset of images or points, or its name")
    return cached(adapted(recipe_for(name, data.name), settings), data, seed=seed, progress=progress)[0]


def recipe_for(name: str, dataset: str) -> Recipe:
    """How the reference model is trained; on other data as on the digits, or plainly."""
    return REFERENCE.get((name, dataset)) or REFERENCE.get((name, "digits")) or Recipe(name)


def adapted(recipe: Recipe, settings: dict[str, object]) -> Recipe:
    """The recipe with other settings; `ValueError` names one that there is not."""
    for name, value in settings.items():
        check_choice("setting", name, tuple(field.name for field in fields(Recipe) if field.name != "victim"))
        if name == "perturb" and value is not None and not (is_dataclass(value) and callable(value)):
            raise ValueError(
                f"perturb is {describe(value)}; accepted: a frozen dataclass such as Shift(1), whose repr says all "
                "that it does, since the cache knows it by that"
            )
        if name == "objective" and not (value is None or isinstance(value, Robustly)):
            raise ValueError(f"objective is {describe(value)}; accepted: Robustly(loss, ...), or None")
    return replace(recipe, **settings)


def cached(recipe: Recipe, data: Dataset, *, seed: int, progress: bool = True) -> tuple[nn.Module, History]:
    """Model and history from the cache, else trained and kept.

    Two processes that want the same model at once both train it; each writes the whole file, and both write the same.
    """
    key = model_key(recipe, data, seed)
    path = cache_folder() / "models" / f"{recipe.victim}-{data.name}-{key[:16]}.safetensors"
    model = built(recipe.victim, data.shape, data.num_classes)
    if path.exists():
        try:
            metadata = fill(model, path)
            if metadata["key"] == key:
                return model.eval(), history_of(metadata)
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            warnings.warn(f"{path} is damaged ({error}): the model is trained again.", stacklevel=3)
    model, history = train(recipe, data, seed=seed, checkpoint=path.with_suffix(".checkpoint"), progress=progress)
    try:
        write_atomically(path, packed(model, {"key": key, "history": json.dumps(asdict(history))}))
    except OSError as error:
        warnings.warn(f"{path} cannot be written ({error}): the next call trains again.", stacklevel=3)
    return model, history


def model_key(recipe: Recipe, data: Dataset, seed: int) -> str:
    """SHA-256 of everything that determines a trained model."""
    weights = built(recipe.victim, data.shape, data.num_classes).state_dict()
    return digest_settings(
        {
            "version": TRAINING_VERSION,
            "torch": torch.__version__,
            "recipe": recipe.settings(),
            "shapes": {name: list(tensor.shape) for name, tensor in weights.items()},
            "data": fingerprint(data),
            "seed": seed,
        }
    )


def history_of(metadata: dict[str, str]) -> History:
    """The history that was stored with a model."""
    content = json.loads(metadata["history"])
    return History(**content | {name: tuple(content[name]) for name in ("losses", "accuracies")})


def packed(model: nn.Module, metadata: dict[str, str]) -> bytes:
    """A model's weights as safetensors, with their own SHA-256 in the metadata; equal weights give equal bytes.

    Where half precision holds every weight exactly, they are kept in it.
    """
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    halves = {name: tensor.half() for name, tensor in weights.items()}
    if all(torch.equal(halves[name].to(tensor), tensor) for name, tensor in weights.items()):
        weights = halves
    content = save(weights, {**metadata, "sha256": digest_weights(weights)})
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True).encode()  # the library's order is random
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[start:]


def fill(model: nn.Module, path: Path) -> dict[str, str]:
    """Load weights that `packed` wrote into a model, and return their metadata.

    Raises:
        ValueError: the content does not have its own SHA-256, or does not fit the model.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
    if digest_weights(weights) != metadata.get("sha256"):
        raise ValueError("its SHA-256 differs")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"its weights are those of another network: {error}") from None
    return metadata


def digest_weights(weights: dict[str, Tensor]) -> str:
    """SHA-256 of weights, whatever their order."""
    return digest_tensors(dict(sorted(weights.items())))
