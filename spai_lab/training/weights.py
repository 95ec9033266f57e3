"""Reference weights: trained once, committed with a manifest that says how, and checked when they are loaded.

Every model has been trained from several seeds; the committed one is seed 0, whatever its accuracy.
"""

import hashlib
import json
import math
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import nn
from tqdm.auto import tqdm

from spai_lab.attacks.evasion.gradient import pgd
from spai_lab.checks import check_choice, check_count, check_flag, unsuspecting
from spai_lab.data import Dataset, DataUnavailable, default_name, load
from spai_lab.files import data_folder, write_atomically
from spai_lab.metrics import accuracy_rate
from spai_lab.training.cache import cached, model_key, packed
from spai_lab.training.loop import accuracy
from spai_lab.training.recipes import REFERENCE, built, fingerprint

SEEDS = {"digits": 20, "moons": 20, "mnist": 5}
# Half an hour of training each, so one seed; large, so their weights are rounded to half precision.
COSTLY = {"strided-trades-mnist", "strided-pgd-mnist", "strided-ibp-mnist"}
FALSE_ALARM = 1e-6
RADII = (0.1, 0.2, 0.3)
ATTACKED = 1000


def reference(name: str = "lenet", dataset: Dataset | str | None = None) -> nn.Module:
    """A victim with its committed weights.

    Args:
        name: "softmax", "mlp", "lenet" or "lenet-robust" (adversarially trained).
        dataset: "digits", "mnist" or "moons" (mlp alone), or such a data set; None takes the one that `load()` takes.
    Returns:
        the model, in evaluation mode; each call makes a new one.
    Raises:
        ValueError: there is no such reference model.
        spai_lab.data.DataUnavailable: the weights are missing or damaged; the message says what to do.

    >>> reference("mlp", "moons")(torch.zeros(1, 2, 1, 1)).shape
    torch.Size([1, 2])
    """
    shape = dataset.shape if isinstance(dataset, Dataset) else None
    dataset = dataset.name if isinstance(dataset, Dataset) else dataset or default_name()
    check_choice("name", name, tuple(dict.fromkeys(name for name, _ in REFERENCE)))
    check_choice("dataset", dataset, tuple(data for known, data in REFERENCE if known == name))
    entry = manifest()["models"].get(f"{name}-{dataset}")
    if entry is None:
        raise DataUnavailable(f"{name} on {dataset} has not been trained yet: run `spai-lab models`.")
    if shape not in (None, tuple(entry["shape"])):
        raise ValueError(f"dataset has inputs of shape {shape}; accepted: {tuple(entry['shape'])}, as it was trained")
    model = built(entry["recipe"]["victim"], tuple(entry["shape"]), entry["classes"])
    path = weights_folder() / entry["file"]
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise ValueError("its SHA-256 is not the manifest's")
    except (OSError, ValueError) as error:
        raise DataUnavailable(
            f"{path} is missing or damaged ({error}): get it again from the repository, or run `spai-lab models`."
        ) from error
    model.load_state_dict(safetensors.torch.load(content))
    return model.eval()


def weights_folder() -> Path:
    """Where the committed weights and `manifest.json` lie."""
    return data_folder() / "weights"


def manifest(folder: Path | None = None) -> dict:
    """`manifest.json`: how each reference model was trained, and how well it does.

    Raises:
        spai_lab.data.DataUnavailable: it is missing or damaged.
    """
    path = (folder or weights_folder()) / "manifest.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataUnavailable(
            f"{path} is missing or damaged ({error}): get it again from the repository, or run `spai-lab models`."
        ) from error


def rebuild(
    names: Sequence[str] | None = None, *, seeds: int | None = None, folder: Path | None = None, progress: bool = True
) -> None:
    """Train the reference models and write their weights and manifest.

    What is up to date stays: a model whose data, recipe, versions and file are those of the manifest, and every seed in
    the user's cache. So an interrupted call goes on where it was.

    Args:
        names: such as "lenet-mnist"; None takes all.
        seeds: how many seeds to train of each; None takes 20, on MNIST 5, and 1 of the `COSTLY`. Fewer than 5 give no
            interval.
        folder: where weights and manifest go; None takes the committed ones.
        progress: show bars.
    Raises:
        ValueError: names the argument.
        spai_lab.data.DataUnavailable: MNIST is not there.
    """
    known = {f"{name}-{dataset}": (name, dataset) for name, dataset in REFERENCE}
    for name in names or ():
        check_choice("names", name, tuple(known))
    if seeds is not None:
        check_count("seeds", seeds)
    check_flag("progress", progress)
    folder = weights_folder() if folder is None else Path(folder)
    with tqdm(names or list(known), desc="reference models", disable=not progress) as bar:
        for name in bar:
            bar.set_postfix_str(name)
            data = load(known[name][1])
            count = seeds or (1 if name in COSTLY else SEEDS[data.name])
            if not up_to_date(entries(folder).get(name), name, data, count, folder):
                entry = rebuilt(name, data, count, folder, progress)
                found = entries(folder) | {name: entry}
                content = {"false_alarm": FALSE_ALARM, "models": {name: found[name] for name in known if name in found}}
                write_atomically(folder / "manifest.json", (json.dumps(content, indent=1) + "\n").encode())


def entries(folder: Path) -> dict[str, dict]:
    """The models of a manifest, by name; none where there is no manifest yet."""
    return manifest(folder)["models"] if (folder / "manifest.json").exists() else {}


def up_to_date(entry: dict | None, name: str, data: Dataset, seeds: int, folder: Path) -> bool:
    """Whether the manifest's entry is what `rebuilt` would write."""
    if entry is None or len(entry["accuracies"]) < seeds or not (folder / entry["file"]).exists():
        return False
    recipe = REFERENCE[name.removesuffix(f"-{data.name}"), data.name]
    content = (folder / entry["file"]).read_bytes()
    return entry["key"] == model_key(recipe, data, 0) and entry["sha256"] == hashlib.sha256(content).hexdigest()


def rebuilt(name: str, data: Dataset, seeds: int, folder: Path, progress: bool) -> dict:
    """Train a reference model from each seed, write the weights of seed 0, and return its entry for the manifest."""
    recipe = REFERENCE[name.removesuffix(f"-{data.name}"), data.name]
    runs = [
        cached(recipe, data, seed=seed, progress=progress)
        for seed in tqdm(range(seeds), desc=f"{name}, seeds", disable=not progress)
    ]
    if name in COSTLY:
        runs[0][0].half().float()
    accuracies = [accuracy(model, data.x_test, data.y_test) for model, _ in runs]
    model, key = runs[0][0], model_key(recipe, data, 0)
    content = packed(model, {"model": name, "key": key})
    write_atomically(folder / f"{name}.safetensors", content)
    return {
        "file": f"{name}.safetensors",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "key": key,
        "shape": list(data.shape),
        "classes": data.num_classes,
        "dataset": {"name": data.name, "sha256": fingerprint(data), "credit": data.credit},
        "recipe": recipe.settings(),
        "seed": 0,
        "accuracies": accuracies,
        "mean": statistics.mean(accuracies),
        "interval": prediction_interval(accuracies, len(data.x_test), FALSE_ALARM) if seeds >= 5 else None,
        "robust": robust_accuracies(model, data),
        "epochs": [history.epochs for _, history in runs],
        "seconds": [round(history.seconds, 1) for _, history in runs],
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__.split("+")[0]},
        "system": f"{platform.system()} {platform.machine()}",
    }


def robust_accuracies(model: nn.Module, data: Dataset) -> dict:
    """The accuracy that PGD leaves, in L-inf with 40 steps, on a sample of the test images."""
    x, y = data.sample(ATTACKED)
    left = {}
    for eps in RADII:
        with unsuspecting():
            x_adv = pgd(model, x, y, eps=eps, steps=40, generator=torch.Generator().manual_seed(0))
        left[f"{eps:g}"] = accuracy_rate(model, x_adv, y).value
    return {"attack": "PGD, L-inf, 40 steps", "images": len(x), "accuracy": left}


def prediction_interval(accuracies: Sequence[float], images: int, false_alarm: float) -> list[float]:
    r"""Where the accuracy of one more seed lies, but for a share `false_alarm` of all cases.

    $\bar a \pm \sqrt{1 + 1 / n} \max\left(t_{n-1, 1 - \alpha / 2} \, s, \; z_{1 - \alpha / 2}
    \sqrt{\bar a (1 - \bar a) / N}\right)$, cut to [0, 1]: a normal distribution of accuracies, never narrower than that
    of independent errors on the N images. Without the second part, a few seeds that err on the same images would forbid
    the next one another error.

    Args:
        accuracies: of n seeds on the same images, n at least 2.
        images: N.
        false_alarm: alpha.
    Returns:
        the lower and the upper end.

    >>> [round(end, 3) for end in prediction_interval([0.5, 0.6, 0.7], 10_000, 0.05)]
    [0.103, 1.0]
    """
    from scipy.stats import norm, t

    n, mean = len(accuracies), statistics.mean(accuracies)
    between_seeds = t.isf(false_alarm / 2, n - 1) * statistics.stdev(accuracies)
    between_images = norm.isf(false_alarm / 2) * math.sqrt(mean * (1 - mean) / images)
    half = float(math.sqrt(1 + 1 / n) * max(between_seeds, between_images))
    return [max(0.0, mean - half), min(1.0, mean + half)]
