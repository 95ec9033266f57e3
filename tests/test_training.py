"""The training loop: it learns, it stops, it goes on after an interruption, and it says what is wrong."""

import math
import warnings

import pytest
import torch
from torch import nn

from spai_lab.checks import SuspiciousResult
from spai_lab.models import build
from spai_lab.training import Adversarial, Diverged, Robustly, Shift, accuracy, fit
from spai_lab.training.loop import schedule


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


@pytest.fixture
def data():
    """Two clouds of points that a line separates: training inputs, labels, and the same for validation."""
    x = torch.rand(120, 2, 1, 1, generator=seeded())
    y = (x[:, 0] > x[:, 1]).long().flatten()
    return x[:80], y[:80], x[80:], y[80:]


def trained(data, seed=0, **settings):
    model = build("mlp", (2, 1, 1), 2, generator=seeded(seed))
    x, y, x_val, y_val = data
    settings = {"epochs": 6, "batch_size": 16, "x_val": x_val, "y_val": y_val, "generator": seeded(seed)} | settings
    return model, fit(model, x, y, progress=False, **settings)


def test_softmax_regression_learns_digits(digits):
    model = build("softmax", generator=seeded())
    history = fit(model, digits.x_train, digits.y_train, epochs=15, batch_size=32, generator=seeded(), progress=False)
    assert history.losses[-1] < 0.3 < history.losses[0]
    # scikit-learn's logistic regression reaches 95 % on the same images.
    assert accuracy(model, digits.x_test, digits.y_test) > 0.93


def test_same_generator_gives_the_same_weights(data):
    assert same(trained(data)[0], trained(data)[0])
    assert not same(trained(data)[0], trained(data, seed=1)[0])


def test_history_says_what_happened(data):
    model, history = trained(data)
    assert history.epochs == len(history.losses) == len(history.accuracies) == 6
    assert history.best == 5
    assert history.seconds > 0
    assert history.accuracies[-1] == accuracy(model, *data[2:])


def test_without_validation_data_there_are_no_accuracies(data):
    assert trained(data, x_val=None, y_val=None)[1].accuracies == ()


def test_one_step_already_learns(data):
    untrained = build("mlp", (2, 1, 1), 2, generator=seeded())
    assert not same(trained(data, epochs=1, batch_size=80)[0], untrained)


def test_first_loss_is_that_of_the_untrained_model(data):
    untrained = build("mlp", (2, 1, 1), 2, generator=seeded())
    loss = nn.functional.cross_entropy(untrained(data[0]), data[1]).item()
    assert trained(data, epochs=1, batch_size=80)[1].losses[0] == pytest.approx(loss)


def test_mean_loss_counts_each_input_once(data):
    """In batches of 79 and 1, of which the second has another loss, the mean is over inputs, not over batches."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    model.load_state_dict({"1.weight": torch.tensor([[3.0, 0.0], [0.0, 0.0]]), "1.bias": torch.zeros(2)})
    x, y = data[0], torch.ones(80, dtype=torch.int64)
    settings = {"batch_size": 79, "learning_rate": 1e-9, "perturb": lambda model, x, y: torch.full_like(x, len(x) == 1)}
    losses = fit(model, x, y, epochs=1, progress=False, **settings).losses
    # Logits (0, 0) for 79 inputs and (3, 0) for one, class 1 being right.
    assert losses[0] == pytest.approx((79 * math.log(2) + math.log1p(math.exp(3))) / 80, rel=1e-5)


def test_learning_rate_warms_up_and_falls_to_zero():
    rates = [schedule(t / 100) for t in range(101)]
    assert max(rates) == rates[25] == 1
    assert rates[:26] == sorted(rates[:26])
    assert rates[25:] == sorted(rates[25:], reverse=True)
    assert rates[0] == 0 == pytest.approx(rates[-1])


class Interrupt:
    """A hook that does nothing, until its call number `last` ends the run as a user would."""

    def __init__(self, last: int) -> None:
        self.left = last

    def __call__(self, model, x, y):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return x


@pytest.mark.parametrize("last", [0, 3, 5, 12, 29])  # 5 steps an epoch: before, within, at the end of an epoch
@pytest.mark.parametrize("patience", [None, 3])
def test_interrupted_run_goes_on_to_the_same_weights(data, tmp_path, last, patience):
    whole, expected = trained(data, perturb=Interrupt(1000), patience=patience)
    checkpoint = tmp_path / "run.checkpoint"
    settings = {"patience": patience, "checkpoint": checkpoint}
    if last < 5 * expected.epochs:
        with pytest.raises(KeyboardInterrupt):
            trained(data, perturb=Interrupt(last), **settings)
    assert checkpoint.exists() == (5 <= last < 5 * expected.epochs)
    continued, history = trained(data, seed=0, perturb=Interrupt(1000), **settings)
    assert same(continued, whole)
    assert (history.losses, history.accuracies, history.best) == (expected.losses, expected.accuracies, expected.best)
    assert not checkpoint.exists(), "a finished run needs none"


def test_continued_run_takes_all_from_the_checkpoint(data, tmp_path):
    """Neither the weights nor the generator with which one starts again matter."""
    whole, _ = trained(data)
    settings = {"checkpoint": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        trained(data, perturb=Interrupt(12), **settings)
    assert same(trained(data, seed=5, **settings)[0], whole)


def test_adversarial_training_continues_exactly(digits, tmp_path):
    def run(last: int) -> nn.Module:
        generator, interrupt = seeded(), Interrupt(last)
        model = build("softmax", generator=generator)

        def perturb(model, x, y):
            x_adv = Adversarial(0.1, steps=1, step_size=0.1)(model, x, y, generator=generator)
            return interrupt(model, x_adv, y)

        x, y = digits.x_train[:64], digits.y_train[:64]
        settings = {"checkpoint": tmp_path / "run", "perturb": perturb, "generator": generator}
        fit(model, x, y, epochs=4, batch_size=32, progress=False, **settings)
        return model

    whole = run(1000)
    with pytest.raises(KeyboardInterrupt):
        run(5)
    assert same(run(1000), whole)


@pytest.mark.parametrize("damage", [lambda content: content[:100], lambda content: b"", "flip"])
def test_damaged_checkpoint_is_set_aside(data, tmp_path, damage):
    checkpoint = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        trained(data, perturb=Interrupt(12), checkpoint=checkpoint)
    content = bytearray(checkpoint.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    else:
        content = damage(content)
    checkpoint.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged"):
        model, _ = trained(data, checkpoint=checkpoint)
    assert same(model, trained(data)[0])
    assert (tmp_path / "run.damaged").read_bytes() == bytes(content)


def test_checkpoint_of_another_run_is_refused(data, tmp_path):
    checkpoint = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        trained(data, perturb=Interrupt(12), checkpoint=checkpoint)
    x, y, *validation = data
    for settings, inputs in [({"epochs": 7}, data), ({"batch_size": 8}, data), ({}, (x, 1 - y, *validation))]:
        with pytest.raises(ValueError, match=r"checkpoint .* another run"):
            trained(inputs, checkpoint=checkpoint, **settings)
    with pytest.raises(ValueError, match=r"checkpoint .* another run"):
        fit(build("softmax", (2, 1, 1), 2), x, y, epochs=6, batch_size=16, checkpoint=checkpoint, progress=False)
    assert checkpoint.exists()


def test_checkpoint_that_cannot_be_written_does_not_end_the_run(data, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.warns(UserWarning, match="cannot be written"):
        model, history = trained(data, checkpoint=tmp_path / "file" / "run", patience=None)
    assert history.epochs == 6
    assert same(model, trained(data)[0])


def test_early_stop_restores_the_best_weights(data):
    """Wrong labels from the second epoch on: validation gets worse, and the first epoch's weights come back."""
    steps, kept = [], []

    def spoil(model, x, y):
        if len(steps) == 5:
            kept.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        steps.append(1)
        return x if len(steps) <= 5 else 1 - x  # mirrors the points across the line, so that all labels are wrong

    model, history = trained(data, epochs=50, learning_rate=0.05, patience=3, perturb=spoil)
    assert history.best == 0
    assert history.epochs == 4
    assert all(torch.equal(tensor, kept[0][name]) for name, tensor in model.state_dict().items())
    assert accuracy(model, *data[2:]) == max(history.accuracies) > history.accuracies[-1]


def test_mode_and_global_randomness_stay(data):
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(2), nn.Linear(2, 2)).eval()
    model[1].train()
    before = torch.get_rng_state()
    fit(model, data[0], data[1], epochs=1, progress=False)
    accuracy(model, data[0], data[1])
    assert [module.training for module in model] == [False, True, False]
    assert not model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_modes_while_training_and_judging(data):
    modes = []

    class Watched(nn.Linear):
        def forward(self, x):
            modes.append((self.training, torch.is_grad_enabled()))
            return super().forward(x)

    model = nn.Sequential(nn.Flatten(), Watched(2, 2))
    trained_modes = fit(model, *data[:2], epochs=1, batch_size=80, x_val=data[2], y_val=data[3], progress=False)
    assert trained_modes.epochs == 1
    assert (True, True) in modes
    assert modes[-1] == (False, False)


def test_inputs_are_untouched(data):
    copies = [tensor.clone() for tensor in data]
    trained(data)
    assert all(torch.equal(*pair) for pair in zip(data, copies, strict=True))


def test_perturb_gets_and_changes_each_batch(data):
    batches = []

    def perturb(model, x, y):
        batches.append((x, y))
        return torch.zeros_like(x)

    model, _ = trained(data, epochs=1, learning_rate=0.1, perturb=perturb)
    x = torch.cat([x for x, _ in batches])
    assert torch.equal(x.flatten(1).sort(0).values, data[0].flatten(1).sort(0).values), "each input once"
    first_layer = next(model.parameters())
    assert first_layer.shape == (100, 2)
    outputs = model(data[0])
    assert outputs.std(0).max() < trained(data, epochs=1, learning_rate=0.1)[0](data[0]).std(0).max()


def test_objective_takes_the_place_of_the_cross_entropy(data):
    seen = []

    def objective(model, x, y, t):
        seen.append(t)
        return nn.functional.cross_entropy(model(x), 1 - y)

    model, history = trained(data, epochs=12, learning_rate=0.05, objective=objective)
    assert seen == pytest.approx([step / 60 for step in range(60)]), "the share of the steps that are done"
    assert accuracy(model, data[0], 1 - data[1]) > 0.9
    assert history.losses[-1] < history.losses[0]


def test_the_cross_entropy_as_objective_changes_nothing(data):
    plain, _ = trained(data)
    assert same(plain, trained(data, objective=lambda model, x, y, t: nn.functional.cross_entropy(model(x), y))[0])


def test_a_ramp_grows_eps_and_leaves_the_other_settings():
    def loss(model, x, y, *, generator, eps, beta):
        return torch.tensor([eps, beta])

    robustly = Robustly(loss, eps=0.4, beta=2.0, ramp=0.5)
    at = [robustly(None, None, None, t, generator=None).tolist() for t in (0.0, 0.25, 0.5, 0.9)]
    assert at == [pytest.approx(pair) for pair in ([0, 2], [0.2, 2], [0.4, 2], [0.4, 2])]
    assert repr(robustly) == "loss(beta=2.0, eps=0.4, ramp=0.5)", "the cache knows it by that"


def test_weight_decay_shrinks_weights(data):
    size = [sum(p.norm() for p in trained(data, weight_decay=decay)[0].parameters()) for decay in (0.0, 10.0)]
    assert size[1] < size[0]


def test_float64_and_non_contiguous_data(data):
    x = data[0].double().repeat(1, 1, 2, 1)[:, :, ::2]
    model = build("mlp", (2, 1, 1), 2, generator=seeded()).double()
    assert fit(model, x, data[1], epochs=1, progress=False).epochs == 1


@pytest.mark.parametrize("batch_size", [16, 80])  # seen in the training loss, and in the validation
def test_diverged_run_says_what_to_do(data, batch_size):
    with pytest.raises(Diverged, match=r"(?i)(nan|inf).*learning_rate than 1e\+30"):
        trained(data, learning_rate=1e30, epochs=10, batch_size=batch_size)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": None}, ["model", "None"]),
        ({"model": lambda x: x}, ["model", "nn.Module"]),
        ({"x": torch.zeros(0, 2, 1, 1), "y": torch.zeros(0, dtype=torch.int64)}, ["x", "empty"]),
        ({"x": torch.full((80, 2, 1, 1), 255.0)}, ["x", "255", "[0, 1]"]),
        ({"x": torch.full((80, 2, 1, 1), float("nan"))}, ["x", "NaN"]),
        ({"x": [[0.0, 1.0]]}, ["x", "tensor"]),
        ({"x": torch.zeros(80, 3, 1, 1)}, ["model", "(1, 3, 1, 1)"]),
        ({"x": torch.zeros(80, 2, 1, 1, dtype=torch.float64)}, ["x", "float64", "float32"]),
        ({"y": torch.zeros(79, dtype=torch.int64)}, ["y", "(79,)", "(80,)"]),
        ({"y": torch.zeros(80)}, ["y", "float32", "int64"]),
        ({"y": torch.full((80,), 2)}, ["y", "2", "0 to 1"]),
        ({"y": torch.full((80,), -1)}, ["y", "-1"]),
        ({"epochs": 0}, ["epochs", "0", "1"]),
        ({"epochs": 1.5}, ["epochs", "1.5"]),
        ({"batch_size": 0}, ["batch_size", "0"]),
        ({"learning_rate": 0}, ["learning_rate", "0", "above 0"]),
        ({"learning_rate": float("nan")}, ["learning_rate", "nan"]),
        ({"weight_decay": -1}, ["weight_decay", "-1"]),
        ({"x_val": None}, ["x_val", "y_val"]),
        ({"y_val": None}, ["x_val", "y_val"]),
        ({"x_val": torch.full((40, 2, 1, 1), 2.0)}, ["x_val", "2"]),
        ({"y_val": torch.full((40,), 2)}, ["y", "2", "0 to 1"]),
        ({"patience": 0}, ["patience", "0"]),
        ({"patience": 1, "x_val": None, "y_val": None}, ["patience", "x_val"]),
        ({"perturb": 0.1}, ["perturb", "0.1"]),
        ({"objective": 0.1}, ["objective", "0.1"]),
        ({"objective": lambda model, x, y, t: None}, ["objective", "None"]),
        ({"objective": lambda model, x, y, t: torch.ones(())}, ["objective", "weights"]),
        ({"objective": lambda model, x, y, t: model(x).sum(1)}, ["objective", "scalar"]),
        ({"perturb": lambda model, x, y: None}, ["perturb", "None"]),
        ({"perturb": lambda model, x, y: x[:1]}, ["perturb", "(1, 2, 1, 1)"]),
        ({"generator": 0}, ["generator", "0"]),
        ({"checkpoint": 7}, ["checkpoint", "7", "path"]),
        ({"progress": "yes"}, ["progress", "'yes'"]),
    ],
)
def test_bad_input(data, refuses, change, words):
    x, y, x_val, y_val = data
    arguments = {"model": build("softmax", (2, 1, 1), 2), "x": x, "y": y, "x_val": x_val, "y_val": y_val, "epochs": 1}
    refuses(fit, arguments | {"progress": False} | change, *words)


@pytest.mark.parametrize("change", [{"x": torch.zeros(0, 2, 1, 1), "y": torch.zeros(0).long()}, {"batch_size": 0}])
def test_accuracy_of_nothing(data, refuses, change):
    arguments = {"model": build("softmax", (2, 1, 1), 2), "x": data[0], "y": data[1]} | change
    refuses(accuracy, arguments)


def test_shift_moves_each_image_by_at_most_one_pixel():
    x = torch.rand(2000, 2, 5, 4, generator=seeded())
    moved = Shift(1)(None, x, None, generator=seeded())
    padded = nn.functional.pad(x, [1] * 4)
    offsets = [(down, right) for down in range(3) for right in range(3)]
    windows = torch.stack([padded[:, :, down : down + 5, right : right + 4] for down, right in offsets])
    which = (windows == moved).flatten(2).all(2)
    assert (which.sum(0) == 1).all(), "each image is one of its nine shifted copies"
    # 2,000 images over nine cells: 222 each, standard deviation 14; 6 of these are crossed with probability 2e-8.
    assert ((which.sum(1) - 2000 / 9).abs() < 6 * 14.1).all()


def test_adversarial_batches_stay_in_the_ball_without_a_warning(data):
    model, _ = trained(data, learning_rate=0.1, epochs=30)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SuspiciousResult)
        x_adv = Adversarial(0.05, steps=2, step_size=0.05)(model, *data[:2], generator=seeded())
    assert (x_adv - data[0]).abs().max() <= 0.05 + 1e-6
    assert nn.functional.cross_entropy(model(x_adv), data[1]) > nn.functional.cross_entropy(model(data[0]), data[1])
