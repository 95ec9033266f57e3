"""Whatever a process answers, the arena goes on: it takes images and logits, and calls the rest by its name."""

import queue
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spai_lab.arena import duel
from spai_lab.arena.findings import Fouled
from spai_lab.arena.keeper import Keeper
from spai_lab.arena.opponents import opponent
from spai_lab.arena.remote import Proxy
from spai_lab.arena.scene import Scene
from spai_lab.arena.submission import Budget
from spai_lab.crypto.frames import Message
from spai_lab.threat import input_gradient

X = torch.full((2, 1, 28, 28), 0.5)
SCENE = Scene("digits", X, torch.zeros(2, dtype=torch.int64), None, 0.2, 0)
SAYS = torch.zeros(2, dtype=torch.int64)
HUGE = 10**5000  # an int that no text can hold
ODD = [
    *(0, -1, HUGE, 0.5, float("nan"), "", "text", b"bytes", (), ("a", (1,))),
    *(torch.zeros(0), torch.tensor([1, 2]), X, X.double(), X * torch.nan, torch.zeros(2, 10), torch.ones(5, 2, 10)),
]
KINDS = ["made", "other", "failed", "opened", "ask", "logits", "gradient", "verdict", "awake", "x\x1b[2J"]
MESSAGES = st.builds(
    lambda kind, values: Message(kind, tuple(values)),
    st.sampled_from(KINDS),
    st.lists(st.sampled_from(ODD), max_size=4),
)


def puppet(*answers):
    """A keeper whose process has said all that it will say."""
    keeper, inbox = Keeper.__new__(Keeper), queue.Queue()
    for answer in (*answers, None):
        inbox.put(answer)
    keeper.memory, keeper.name, keeper.called, keeper.twin = 1, "mine", "x", None
    keeper.talk = SimpleNamespace(inbox=inbox, outbox=queue.SimpleQueue())
    keeper.process = SimpleNamespace(kill=lambda: None, wait=lambda seconds: -40)
    return keeper


def attacked(access, *answers):
    model = opponent("no defense", "digits").model
    keeper = puppet(Message("begun", ()), *answers)
    return duel.attacked(keeper, "no defense", model, SAYS, SCENE, Budget(access=access))


@settings(max_examples=60, deadline=None)
@given(st.lists(MESSAGES, max_size=3), st.sampled_from(["white-box", "labels"]))
def test_an_attack_gives_images_or_is_caught(answers, access):
    try:
        x_adv = attacked(access, *answers)
    except Fouled as fouled:
        assert str(fouled).isprintable()
    else:
        assert torch.equal(x_adv, X)  # the only images among the odd values that are within eps


@settings(max_examples=60, deadline=None)
@given(st.lists(MESSAGES, min_size=1, max_size=3))
def test_a_defense_answers_or_is_caught(answers):
    try:
        g = input_gradient(Proxy(puppet(*answers), 10, 60.0), X, SAYS)
    except Fouled as fouled:
        assert str(fouled).isprintable()
    else:
        assert g.shape == X.shape


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Message("made", (X, 0, torch.tensor([1, 2]))), None),
        (Message("made", (X, 0, "0.weight")), "changes the model"),
        (Message("made", (X,)), "garbled"),
        (Message("other", ()), "wrong result"),
        (Message("other", (HUGE,)), "wrong result"),
        (Message("failed", ()), "crash"),
        (Message("opened", ("t10k-labels",)), "opens the data set"),
        (Message("ask", (X,)), "garbled"),
        (None, "died"),
    ],
)
def test_forged_answers_to_the_arena(answer, kind):
    if kind is None:
        assert torch.equal(attacked("white-box", answer), X)
        return
    with pytest.raises(Fouled) as caught:
        attacked("white-box", answer)
    assert caught.value.finding.kind == kind


def test_what_a_submission_says_of_itself_is_shown_as_text():
    said = Message("failed", ("ValueError", "\x1b[2J<img src=x onerror=alert(1)>{0}", "raise"))
    with pytest.raises(Fouled) as caught:
        attacked("white-box", said)
    finding = caught.value.finding
    assert "\x1b" not in str(finding)
    assert "<img" not in finding.html
    assert "&lt;img src=x onerror=alert(1)&gt;{0}" in finding.html
