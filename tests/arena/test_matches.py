"""What the arena measures is what would be measured without it, and nothing secret travels."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from torch import nn

from spai_lab.arena import arena as entrance
from spai_lab.arena import duel, keeper
from spai_lab.arena.arena import arena_attack, arena_defense
from spai_lab.arena.findings import Fouled
from spai_lab.arena.opponents import opponent
from spai_lab.arena.remote import Proxy
from spai_lab.arena.scene import Scene, lenet_of, moved, scene_of
from spai_lab.arena.submission import Budget, submission_of
from spai_lab.attacks.evasion import fgsm, square
from spai_lab.metrics import accuracy_rate
from spai_lab.threat import input_gradient, value_and_gradient

ARENA = Path(entrance.__file__).parent
QUIET = {"data": "digits", "seed": 0, "progress": False}


@pytest.fixture
def sent(monkeypatch):
    """Everything that is sent to a submission's process."""
    frames = []
    plain = keeper.pack
    monkeypatch.setattr(keeper, "pack", lambda *values: frames.append(plain(*values)) or frames[-1])
    return frames


# --- attacks


def test_fgsm_through_the_arena_gives_the_numbers_of_fgsm_itself_and_no_label_travels(sent):
    names = ("no defense", "adversarial training")
    result = arena_attack(fgsm, against=names, **QUIET)
    scene = scene_of("digits", seed=0)
    for row, name in zip(result.rows, names, strict=True):
        model = opponent(name, "digits").model
        says = model(scene.x).argmax(1)
        right = says == scene.y
        x_adv = fgsm(model, scene.x, says, eps=scene.eps)
        assert torch.equal(row.standing, right & (model(x_adv).argmax(1) == scene.y))
        assert row.clean == accuracy_rate(model, scene.x, scene.y)
        assert not torch.equal(says, scene.y)  # else what follows would show nothing
    assert not result.found
    everything = b"".join(sent)
    assert scene.x.numpy().tobytes() in everything
    assert scene.y.numpy().tobytes() not in everything
    assert scene.y.to(torch.uint8).numpy().tobytes() not in everything
    assert scene.public.numpy().tobytes() not in everything


def test_whoever_knows_what_was_sent_does_not_know_the_seed():
    scene = scene_of("digits", images=4, seed=12345)
    secrets = {duel.secret_of(scene, f"attack {name}") for name in ("a", "b")}
    assert len(secrets) == 2
    assert scene.seed not in secrets
    assert duel.secret_of(scene, "x") == int(hashlib.sha256(b"12345 x").hexdigest()[:12], 16)


def few_squares(query, x, y, eps):
    return square(query, x, y, eps=eps, queries=30)


def asks_on_and_on(query, x, y, eps):
    while True:
        query(x)


def test_a_black_box_attack_asks_the_arena_which_counts():
    budget = Budget(access="scores", queries=30, seconds=20)
    options = {**QUIET, "images": 16, "against": ["no defense"], "budget": budget}
    result = arena_attack(few_squares, **options)
    assert not result.found
    assert result.rows[0].left.hits < 16
    assert "30 queries" in arena_attack(asks_on_and_on, **options).found[0].what


@pytest.mark.parametrize(
    ("x_adv", "kind"),
    [
        (None, "wrong result"),
        (torch.zeros(3, 1, 28, 28), "wrong result"),
        (torch.zeros(4, 1, 28, 28, dtype=torch.float64), "wrong result"),
        (torch.full((4, 1, 28, 28), torch.nan), "not finite"),
        (torch.full((4, 1, 28, 28), torch.inf), "not finite"),
        (torch.full((4, 1, 28, 28), 1.1), "out of range"),
        (torch.full((4, 1, 28, 28), 0.701), "outside the ball"),
    ],
)
def test_images_that_break_a_rule_are_not_judged(x_adv, kind):
    scene = Scene("digits", torch.full((4, 1, 28, 28), 0.5), torch.zeros(4, dtype=torch.int64), None, 0.2, 0)
    with pytest.raises(Fouled) as caught:
        duel.accepted(x_adv, scene)
    assert caught.value.finding.kind == kind
    assert torch.equal(duel.accepted(scene.x + 0.2, scene), scene.x + 0.2)


# --- defenses


def softened(network, x, y):
    return nn.Sequential(network, nn.Softplus())


@pytest.fixture(scope="module")
def proxy():
    import safetensors.torch

    submission = submission_of(softened)
    weights = safetensors.torch.save(lenet_of("digits").state_dict())
    x, y = torch.zeros(2, 1, 28, 28), torch.zeros(2, dtype=torch.int64)
    with keeper.Keeper(1000) as kept:
        kept.begin("defense", submission.text, submission.name, weights, 0, 0.2, x, y, 10)
        kept.expect("begun", seconds=60, doing="to begin")
        kept.expect("ready", seconds=60, doing="to build")
        yield Proxy(kept, 10, 60.0)


def test_logits_and_gradients_through_the_pipe_are_those_of_autograd(proxy):
    scene = scene_of("digits", images=8, seed=1)
    model = softened(lenet_of("digits"), None, None).eval()
    assert torch.equal(proxy(scene.x), model(scene.x))
    assert torch.allclose(input_gradient(proxy, scene.x, scene.y), input_gradient(model, scene.x, scene.y), atol=1e-6)
    both = [value_and_gradient(lambda x, m=m: (m(x) * m(1 - x)).sum(1), scene.x)[1] for m in (proxy, model)]
    assert torch.allclose(*both, atol=1e-4)


def test_a_slope_that_was_asked_for_twice_is_the_same_and_old_answers_are_forgotten(proxy):
    x = scene_of("digits", images=2, seed=1).x
    first = proxy.answer(x, keep=1)[1]
    v = torch.ones(2, 10)
    assert torch.equal(proxy.gradient(first, v, x), proxy.gradient(first, v, x))


def doubles(network, x, y):
    return network


def test_no_label_reaches_a_defense_not_even_through_a_gradient(sent):
    result = arena_defense(doubles, images=64, compare=False, **QUIET)
    scene = scene_of("digits", seed=0)
    says = lenet_of("digits")(scene.x).argmax(1)
    assert not torch.equal(says, scene.y)
    questions = [frame for frame in sent if b"backward" in frame[:40]]
    assert questions
    assert scene.y.numpy().tobytes() not in b"".join(sent)
    wrong = (says != scene.y).nonzero().flatten()
    for message in map(keeper_unpack, questions):
        v = message.values[1]
        if len(v) == len(says):
            assert (v[wrong].gather(1, scene.y[wrong, None]) >= 0).all()  # cross-entropy pushes its label below 0
    assert result.survivors.hits <= 3


def keeper_unpack(frame):
    from spai_lab.crypto.frames import unpack

    return unpack(frame[4:])


def masks(network, x, y):
    return lambda images: network((images * 2).round() / 2)


def draws(network, x, y):
    return lambda images: network(images + 0.1 * torch.randn_like(images))


@pytest.mark.full
def test_masking_and_randomness_are_noticed_and_the_right_attacks_added():
    masked = arena_defense(masks, images=32, compare=False, **QUIET)
    assert "masked gradient" in [finding.kind for finding in masked.found]
    assert {"stand-in", "Square"} <= {row.name for row in masked.rows}
    assert masked.score < 0.2
    random = arena_defense(draws, images=32, compare=False, **QUIET)
    assert "randomized" in [finding.kind for finding in random.found]
    assert "EOT" in {row.name for row in random.rows}
    assert not random.caught


# --- what is secret, and what is never read


def test_nothing_in_the_arena_unpickles():
    for file in ARENA.glob("*.py"):
        code = re.sub(r'"""[\s\S]*?"""', "", file.read_text(encoding="utf-8"))
        assert not re.search(r"pickle\b(?!=False)|(?<!safetensors\.)torch\.load|marshal|shelve|joblib", code), file.name


def test_the_secret_moves_are_small_and_their_own_for_each_image():
    public = scene_of("digits", images=32, seed=3).public
    one, other = (moved(public, torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert one.shape == public.shape
    assert one.min() >= 0
    assert one.max() <= 1
    assert not torch.equal(one, other)
    assert (one - public).flatten(1).abs().amax(1).min() > 0.05


def test_a_seed_that_nobody_gave_is_another_each_time():
    assert scene_of("digits", images=4).seed != scene_of("digits", images=4).seed


# --- ends

SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from spai_lab.arena.arena import arena_attack
from spai_lab.arena.submission import Budget
text = f"import time\\ndef attack(model, x, y, eps):\\n    open({sys.argv[1]!r}, 'w')\\n    time.sleep(300)\\n"
arena_attack(text, budget=Budget(seconds=300), data="digits", images=4, against=["no defense"], progress=False)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("sign", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.full)])
def test_the_submission_ends_when_the_arena_is_interrupted_or_killed(sign, tmp_path):
    running = tmp_path / "running"
    command = [sys.executable, "-c", SCRIPT, str(running)]
    parent = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    try:
        assert wait_for(running.exists, 90)
        children = psutil.Process(parent.pid).children(recursive=True)
        assert children
        parent.send_signal(sign)
        parent.communicate(timeout=30)
        assert wait_for(lambda: not any(alive(child) for child in children), 15)
    finally:
        parent.kill()


def wait_for(found, seconds):
    deadline = time.monotonic() + seconds
    while not (result := found()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return result


def alive(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
