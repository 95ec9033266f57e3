"""The committed weights are what their manifest says; the cache gives back what was trained, and nothing else."""

import hashlib
import json
import math
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
import safetensors.torch
import torch

from spai_lab.attacks.evasion import pgd
from spai_lab.data import DataUnavailable, load
from spai_lab.models import build
from spai_lab.training import (
    accuracy,
    manifest,
    prediction_interval,
    rebuild,
    reference,
    train,
    trained,
    weights,
)
from spai_lab.training.cache import packed
from spai_lab.training.loop import fit
from spai_lab.training.recipes import REFERENCE, fingerprint

MODELS = manifest()["models"]
LONG = ("lenet-mnist", "lenet-robust-mnist", "lenet-robust-digits")
# An interval takes five seeds; the robust models that train for a quarter of an hour and more have one.
RETRAINED = [name for name, facts in MODELS.items() if name not in LONG and facts["interval"] is not None]
MEGABYTE = 1_000_000


def named(entry_name: str) -> tuple[str, str]:
    """ "lenet-robust-digits" -> ("lenet-robust", "digits")."""
    name, _, dataset = entry_name.rpartition("-")
    return name, dataset


def flat(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in model.state_dict().values()])


@pytest.fixture
def data_of(request):
    """The data set of a name; MNIST is skipped where it is not."""
    return lambda dataset: load("moons") if dataset == "moons" else request.getfixturevalue(dataset)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPAI_CACHE", str(tmp_path))
    return tmp_path / "models"


# Manifest and files


def test_every_recipe_has_its_weights():
    assert set(MODELS) == {f"{name}-{dataset}" for name, dataset in REFERENCE}


@pytest.mark.parametrize("name", MODELS)
def test_file_is_the_one_of_the_manifest(name):
    entry = MODELS[name]
    content = (weights.weights_folder() / entry["file"]).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["bytes"], entry["sha256"])


def test_folder_holds_nothing_else_and_stays_small():
    files = {path.name: path.stat().st_size for path in weights.weights_folder().iterdir()}
    assert set(files) == {"manifest.json", *(entry["file"] for entry in MODELS.values())}
    assert sum(files.values()) < 10 * MEGABYTE


@pytest.mark.parametrize("name", MODELS)
def test_manifest_tells_how_the_model_was_trained(name):
    entry = MODELS[name]
    assert entry["recipe"] == REFERENCE[named(name)].settings(), "the recipe has changed: run `spai-lab models`"
    assert len(entry["accuracies"]) == len(entry["epochs"]) == len(entry["seconds"])
    assert entry["mean"] == pytest.approx(sum(entry["accuracies"]) / len(entry["accuracies"]))
    assert set(entry["versions"]) == {"python", "torch"}


@pytest.mark.parametrize("name", MODELS)
def test_data_is_that_of_the_manifest(name, data_of):
    """Elsewhere the last bits of an enlarged digit or a sine may differ; those of MNIST do not."""
    entry = MODELS[name]
    dataset = entry["dataset"]["name"]
    if dataset != "mnist" and entry["system"] != f"{platform.system()} {platform.machine()}":
        pytest.skip(f"trained on {entry['system']}")
    assert fingerprint(data_of(dataset)) == entry["dataset"]["sha256"], "the data has changed: run `spai-lab models`"


@pytest.mark.parametrize("name", MODELS)
def test_accuracy_on_the_test_images_is_that_of_the_manifest(name, data_of):
    entry = MODELS[name]
    data = data_of(named(name)[1])
    measured = accuracy(reference(*named(name)), data.x_test, data.y_test)
    assert measured == pytest.approx(entry["accuracies"][entry["seed"]], abs=2 / len(data.x_test))
    if entry["interval"]:
        low, high = entry["interval"]
        assert low <= measured <= high


@pytest.mark.parametrize(("name", "least"), [("lenet-digits", 0.97), ("lenet-mnist", 0.99)])
def test_lenet_is_as_accurate_as_promised(name, least):
    assert len(MODELS[name]["accuracies"]) >= 5
    assert MODELS[name]["mean"] >= least


@pytest.mark.parametrize("dataset", ["digits", "mnist"])
def test_robust_model_is_the_robust_one(dataset, data_of):
    data = data_of(dataset)
    x, y = data.sample(200, seed=1)
    for eps in (0.1, 0.2):
        left = {}
        for name in ("lenet", "lenet-robust"):
            model = reference(name, data)
            left[name] = accuracy(model, pgd(model, x, y, eps=eps, generator=torch.Generator().manual_seed(1)), y)
            # Two draws of 200 images at rates p: standard deviation at most .05 each; 5 of these.
            assert left[name] == pytest.approx(MODELS[f"{name}-{dataset}"]["robust"]["accuracy"][f"{eps:g}"], abs=0.2)
        assert left["lenet-robust"] > left["lenet"] + 0.3


def test_weights_are_finite():
    assert all(flat(reference(*named(name))).isfinite().all() for name in MODELS)


# reference


def test_reference_takes_a_data_set_or_its_name(digits, monkeypatch):
    monkeypatch.setenv("SPAI_DATASET", "digits")
    models = [reference("lenet", "digits"), reference("lenet", digits), reference("lenet"), reference()]
    assert all(torch.equal(flat(models[0]), flat(model)) for model in models)
    assert not any(model.training for model in models)
    assert len({id(model) for model in models}) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "resnet"}, ["name", "'resnet'", "'lenet-robust'"]),
        ({"name": "madry", "dataset": "mnist"}, ["name", "'madry'"]),
        ({"name": "lenet", "dataset": "moons"}, ["dataset", "'moons'", "'digits'"]),
        ({"name": "mlp", "dataset": 7}, ["dataset", "7", "'moons'"]),
        ({"name": "mlp", "dataset": load("digits", raw=True)}, ["dataset", "(1, 8, 8)", "(1, 28, 28)"]),
    ],
)
def test_reference_that_there_is_not(refuses, arguments, words):
    refuses(reference, arguments, *words)


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "manifest", "no manifest"])
def test_damaged_reference_says_what_to_do(tmp_path, monkeypatch, damage):
    folder = tmp_path / "weights"
    shutil.copytree(weights.weights_folder(), folder)
    monkeypatch.setattr(weights, "weights_folder", lambda: folder)
    file = folder / "mlp-moons.safetensors"
    content = bytearray(file.read_bytes())
    match damage:
        case "truncate":
            file.write_bytes(content[:-1])
        case "flip":
            content[-1] ^= 1
            file.write_bytes(content)
        case "remove":
            file.unlink()
        case "manifest":
            (folder / "manifest.json").write_text("{", encoding="utf-8")
        case "no manifest":
            (folder / "manifest.json").unlink()
    with pytest.raises(DataUnavailable, match=r"is missing or damaged.*spai-lab models"):
        reference("mlp", "moons")


# The cache


def test_second_call_does_not_train(cache, monkeypatch):
    first = trained("mlp", "moons", epochs=2, progress=False)
    (file,) = cache.iterdir()
    stamp = file.stat().st_mtime_ns
    monkeypatch.setattr("spai_lab.training.recipes.fit", lambda *_, **__: pytest.fail("trained again"))
    second = trained("mlp", load("moons"), epochs=2, progress=False)
    assert torch.equal(flat(first), flat(second))
    assert not second.training
    assert file.stat().st_mtime_ns == stamp


@dataclass(frozen=True)
class Dim:
    """A perturbation of one's own."""

    factor: float

    def __call__(self, model, x, y, *, generator):
        return self.factor * x


def test_whatever_matters_makes_another_model(cache):
    changes = [
        *[{}, {"seed": 1}, {"epochs": 3}, {"batch_size": 65}, {"learning_rate": 0.02}, {"weight_decay": 0.1}],
        *[{"patience": 5}, {"perturb": Dim(0.5)}, {"perturb": Dim(0.4)}],
    ]
    for change in changes:
        trained("mlp", "moons", progress=False, **({"epochs": 2} | change))
    moons = load("moons")
    moons.y_train[0] = 1 - moons.y_train[0]
    trained("mlp", moons, epochs=2, progress=False)
    trained("softmax", "moons", epochs=2, progress=False)
    assert len(list(cache.iterdir())) == len(changes) + 2


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "other"])
def test_damaged_entry_is_trained_again_with_a_warning(cache, damage):
    first = trained("mlp", "moons", epochs=2, progress=False)
    (file,) = cache.iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    other = b"not safetensors at all"
    file.write_bytes({"truncate": content[:500], "flip": content, "empty": b"", "other": other}[damage])
    with pytest.warns(UserWarning, match="is damaged .* trained again"):
        second = trained("mlp", "moons", epochs=2, progress=False)
    assert torch.equal(flat(first), flat(second))
    assert torch.equal(flat(first), flat(trained("mlp", "moons", epochs=2, progress=False))), "repaired"


def test_interrupted_training_goes_on(cache, monkeypatch):
    def interrupted(*arguments, **settings):
        calls = []

        def perturb(model, x, y):
            calls.append(1)
            if len(calls) > 30:  # 19 batches an epoch
                raise KeyboardInterrupt
            return x

        return fit(*arguments, **settings | {"perturb": perturb})

    with monkeypatch.context() as patched:
        patched.setattr("spai_lab.training.recipes.fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trained("mlp", "moons", epochs=3, progress=False)
    assert [path.suffix for path in cache.iterdir()] == [".checkpoint"]
    seen = []

    def watched(*arguments, **settings):
        def perturb(model, x, y):
            seen.append(1)
            return x

        return fit(*arguments, **settings | {"perturb": perturb})

    monkeypatch.setattr("spai_lab.training.recipes.fit", watched)
    continued = trained("mlp", "moons", epochs=3, progress=False)
    assert len(seen) == 2 * 19, "the first epoch is not trained again"
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]
    monkeypatch.undo()
    assert torch.equal(flat(continued), flat(train_moons(epochs=3)))


def train_moons(**settings):
    from spai_lab.training.cache import adapted

    return train(adapted(REFERENCE["mlp", "moons"], settings), load("moons"), progress=False)[0]


def test_cache_that_cannot_be_written_is_no_reason_to_fail(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SPAI_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="cannot be written"):
        model = trained("mlp", "moons", epochs=1, progress=False)
    assert torch.equal(flat(model), flat(train_moons(epochs=1)))


def test_two_processes_at_once(cache):
    program = "from spai_lab.training import trained; trained('mlp', 'moons', epochs=3, progress=False)"
    processes = [subprocess.Popen([sys.executable, "-W", "error::UserWarning", "-c", program]) for _ in range(2)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    (file,) = cache.iterdir()
    assert file.suffix == ".safetensors"
    trained("mlp", "moons", epochs=3, progress=False)  # a warning would be an error here, had the file been damaged


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "resnet"}, ["name", "'resnet'"]),
        ({"dataset": "imagenet"}, ["name", "'imagenet'"]),
        ({"dataset": 3}, ["dataset", "3"]),
        ({"dataset": "tabular"}, ["dataset", "Tabular"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"seed": 0.5}, ["seed", "0.5"]),
        ({"epochs": 0}, ["epochs", "0"]),
        ({"lr": 0.1}, ["setting", "'lr'", "'learning_rate'"]),
        ({"victim": "lenet"}, ["setting", "'victim'"]),
        ({"perturb": lambda model, x, y, generator: x}, ["perturb", "dataclass"]),
        ({"objective": lambda model, x, y, t: x}, ["objective", "Robustly"]),
        ({"progress": 1}, ["progress", "1"]),
    ],
)
def test_bad_input(cache, refuses, arguments, words):
    refuses(trained, {"name": "mlp", "dataset": "moons", "progress": False} | arguments, *words)


# Rebuilding and its interval


def test_rebuild_writes_what_reference_reads_and_rests_when_done(cache, tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    quick = {("mlp", "moons"): REFERENCE["mlp", "moons"], ("softmax", "digits"): REFERENCE["softmax", "digits"]}
    quick = {key: type(recipe)(recipe.victim, epochs=1) for key, recipe in quick.items()}
    monkeypatch.setattr(weights, "REFERENCE", quick)
    monkeypatch.setattr(weights, "weights_folder", lambda: folder)
    rebuild(["mlp-moons"], seeds=2, progress=False)
    rebuild(seeds=2, progress=False)
    found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert list(found["models"]) == ["mlp-moons", "softmax-digits"]
    assert found["models"]["mlp-moons"]["interval"] is None, "two seeds are too few for one"
    moons = load("moons")
    measured = accuracy(reference("mlp", "moons"), moons.x_test, moons.y_test)
    assert measured == found["models"]["mlp-moons"]["accuracies"][0]
    monkeypatch.setattr(weights, "cached", lambda *_, **__: pytest.fail("trained again"))
    rebuild(seeds=2, progress=False)
    (folder / "mlp-moons.safetensors").write_bytes(b"damaged")
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        rebuild(seeds=2, progress=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"names": ["lenet"]}, ["names", "'lenet'", "'lenet-mnist'"]),
        ({"seeds": 0}, ["seeds", "0"]),
        ({"progress": None}, ["progress", "None"]),
    ],
)
def test_rebuild_refuses(refuses, tmp_path, arguments, words):
    refuses(rebuild, {"folder": tmp_path} | arguments, *words)


def test_interval_has_the_false_alarm_rate_that_it_states():
    """Of 20,000 sixth draws at alpha = .05, 1,000 fall outside; the standard deviation is 31, 5 of these 154."""
    draws = torch.randn(20_000, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1e-3 + 0.5
    outside = 0
    for *five, sixth in draws.tolist():
        low, high = prediction_interval(five, 10**9, 0.05)
        outside += not low <= sixth <= high
    assert abs(outside - 1000) < 5 * math.sqrt(20_000 * 0.05 * 0.95)


def test_interval_leaves_room_for_another_error():
    """Five seeds that all err on the same 2 of 600 images do not forbid a sixth to err on 5 or on none."""
    low, high = prediction_interval([598 / 600] * 5, 600, 1e-6)
    assert low < 595 / 600
    assert high == 1


def commit_number(root) -> int:
    """A number that changes with each commit; where there is no git, with each day."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=10)
        return int(found.stdout.strip(), 16)
    except (OSError, ValueError, subprocess.SubprocessError):
        return int(time.time() // 86_400)


def retrain(name: str, data, number: int) -> float:
    """Train from a seed that the manifest has not seen."""
    model, _ = train(REFERENCE[named(name)], data, seed=1000 + number % 1_000_000, progress=False)
    return accuracy(model, data.x_test, data.y_test)


def test_one_model_retrained_falls_into_its_interval(root, data_of):
    """Another model at each commit; false alarms: one in a million, as the manifest says."""
    assert manifest()["false_alarm"] == 1e-6
    number = commit_number(root)
    name = RETRAINED[number % len(RETRAINED)]
    low, high = MODELS[name]["interval"]
    assert low <= retrain(name, data_of(named(name)[1]), number) <= high, name


@pytest.mark.full
@pytest.mark.parametrize("name", LONG)
def test_long_model_retrained_falls_into_its_interval(root, data_of, name):
    if MODELS[name]["interval"] is None:
        pytest.skip("fewer than five seeds were trained")
    low, high = MODELS[name]["interval"]
    assert low <= retrain(name, data_of(named(name)[1]), commit_number(root)) <= high


def test_interval_catches_a_planted_fault(digits):
    """A class that is mislabeled in training shows in the accuracy."""
    labels = torch.where(digits.y_train == 9, 8, digits.y_train)
    recipe = REFERENCE["softmax", "digits"]
    model = build(recipe.victim, generator=torch.Generator().manual_seed(0))
    fit(model, digits.x_train, labels, epochs=recipe.epochs, batch_size=recipe.batch_size, progress=False)
    low, _ = MODELS["softmax-digits"]["interval"]
    assert accuracy(model, digits.x_test, digits.y_test) < low


def test_equal_weights_are_packed_to_equal_bytes():
    model = build("softmax", (1, 4, 4), 2, generator=torch.Generator().manual_seed(0))
    metadata = {name: name for name in "abcdefgh"}
    content = {packed(model, metadata) for _ in range(20)}
    assert len(content) == 1
    assert torch.equal(safetensors.torch.load(content.pop())["2.weight"], model[2].weight)
