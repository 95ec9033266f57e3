"""The process of a submission: it gets text and raw arrays, runs them, and answers with raw arrays.

What a submission prints goes into a pipe that the arena reads; `input()` finds nothing; Ctrl-C is for the arena, which
ends this process. When the arena is gone, so is this process, with all that it started.

A process is no sandbox. What is watched within it, the count of gradients and the files that are opened, a submission
can turn off. It runs as the user: it can read files, the opponents' weights among them, and where the system allows it
the memory of the arena, write where the user may write, and pass notes through files to the copy that is judged.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from spai_lab.arena.limits import limit
from spai_lab.arena.line import Line, watch
from spai_lab.arena.running import OverBudget, called, function_in, told

GRAPHS = 32  # answers whose graphs are kept until somebody asks for their gradients

# --- an attack --------------------------------------------------------------------------------------------------------


class Remote(nn.Module):
    """The victim of a black-box attack: it stays with the arena, which answers, counts and refuses."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self.ask = line.ask

    def forward(self, x: Tensor) -> Tensor:
        """What the arena reveals, as logits."""
        kind, values = self.ask("ask", x.detach())
        if kind == "refused":
            raise OverBudget(values[0])
        return values[0]


def rebuilt(network: str, weights: bytes, x: Tensor, classes: int) -> nn.Module:
    """A victim from its weights, which are read as numbers, never unpickled."""
    import safetensors.torch

    from spai_lab.models import build

    model = build(network, tuple(x.shape[1:]), classes)
    model.load_state_dict(safetensors.torch.load(weights))
    return model.eval()


def defended(name: str, data: str) -> nn.Module:
    """A victim that is more than a network; its module takes a second to import."""
    from spai_lab.arena.opponents import opponent

    return opponent(name, data).model


def counting(model: nn.Module, allowed: int, images: int) -> Callable[[], int]:
    """Count the gradients that go through a model; raise `OverBudget` beyond `allowed` an image, of so many images."""
    spent = 0

    def note(module: nn.Module, given: tuple, logits: Tensor) -> None:
        def count(gradient: Tensor) -> None:
            nonlocal spent
            spent += len(gradient)
            if spent > allowed * images:
                raise OverBudget(f"{allowed} gradients")

        if isinstance(logits, Tensor) and logits.requires_grad:
            logits.register_hook(count)

    model.register_forward_hook(note)
    return lambda: spent


def attack(line: Line, text: str, name: str) -> None:
    """Run a submitted attack on one victim after the other."""
    watching = watch(line)
    watching(True)
    function = function_in(text, name)
    watching(False)
    line.send("ready")
    while (task := line.receive()).kind != "end":
        defense, data, network, weights, classes, access, allowed, eps, seed, x, y = task.values
        torch.manual_seed(seed)
        offered = {"eps": eps, "generator": torch.Generator().manual_seed(seed), "defense": defense}
        if access == "white-box":
            victim = rebuilt(network, weights, x, classes) if network else defended(defense, data)
            before = {key: value.clone() for key, value in victim.state_dict().items()}
            spent = counting(victim, allowed, len(x))
        else:
            from spai_lab.query import Query

            victim, before, spent = Query(Remote(line), access, cap=allowed), {}, lambda: 0
        line.send("begun")  # from here on the attack's own time runs
        watching(True)
        x_adv = called(function, (victim, x.clone(), y.clone()), offered)
        watching(False)
        after = victim.state_dict() if before else {}
        changed = [key for key in before if key not in after or not torch.equal(before[key], after[key])]
        send_result(line, x_adv, spent(), changed[0] if changed else "")


def send_result(line: Line, x_adv: object, spent: int, changed: str) -> None:
    """Send the images where they are such that a frame can carry them, else what came in their place."""
    if isinstance(x_adv, Tensor | np.ndarray):
        with suppress(ValueError, RuntimeError, TypeError):
            return line.send("made", x_adv.detach() if isinstance(x_adv, Tensor) else x_adv, spent, changed)
    return line.send("other", kind_of(x_adv))


def kind_of(value: object) -> str:
    """A short account of a result that is no array."""
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor"
    kind = type(value).__name__
    return "None" if value is None else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


# --- a defense --------------------------------------------------------------------------------------------------------


def defend(
    line: Line, text: str, name: str, weights: bytes, seed: int, eps: float, x: Tensor, y: Tensor, classes: int
) -> None:
    """Build a submitted defense, then answer for it: logits, and how they change with the pixels."""
    import safetensors.torch

    from spai_lab.models import lenet

    torch.manual_seed(seed)
    network = lenet(tuple(x.shape[1:]), classes)
    network.load_state_dict(safetensors.torch.load(weights))
    watch(line)(True)
    function = function_in(text, name)
    line.send("begun")
    offered = {"eps": eps, "generator": torch.Generator().manual_seed(seed)}
    model = called(function, (network.eval(), x, y), offered)
    if not callable(model):
        line.send("other", kind_of(model))
        return
    if isinstance(model, nn.Module):
        model.eval()
        for weight in model.parameters():
            weight.requires_grad_(False)
    leave_a_twin(line, model)
    line.send("ready")
    graphs: dict[int, tuple[Tensor, Tensor]] = {}
    for number, task in enumerate(iter(line.receive, None)):
        match task.kind:
            case "forward":
                answer(line, model, number, graphs, *task.values)
            case "backward":
                backward(line, graphs, *task.values)
            case _:
                return


def answer(line: Line, model: Callable, number: int, graphs: dict, x: Tensor, keep: int) -> None:
    """The logits of some images; their graph is kept where somebody will ask for gradients."""
    x = x.requires_grad_(bool(keep))
    with torch.set_grad_enabled(bool(keep)):
        logits = model(x)
    if not isinstance(logits, Tensor):
        line.send("other", kind_of(logits))
        return
    if keep:
        graphs[number] = (x, logits)
        for old in list(graphs)[:-GRAPHS]:
            del graphs[old]
    line.send("logits", logits.detach(), number)


def backward(line: Line, graphs: dict, number: int, v: Tensor) -> None:
    """How the logits of an earlier answer, weighed by `v`, change with its pixels."""
    x, logits = graphs[number]
    found = None
    if logits.requires_grad:
        found = torch.autograd.grad(logits, x, v, retain_graph=True, allow_unused=True)[0]
    line.send("gradient", torch.zeros_like(x) if found is None else found)


# --- its twin ---------------------------------------------------------------------------------------------------------


def leave_a_twin(line: Line, model: Callable) -> None:
    """Leave a copy of this process, as it is before the first question, to the judge; where there are pipes for it."""
    if not line.twin:
        return
    if os.fork() == 0:
        torch.set_num_threads(1)  # the threads that there were are not copied
        questions, answers = line.twin
        judged(Line(os.fdopen(questions, "rb"), os.fdopen(answers, "wb")), model)
        os._exit(0)
    for pipe in line.twin:
        os.close(pipe)


def judged(line: Line, model: Callable) -> None:
    """Let each question of the judge be answered by a copy of the model that was never asked anything else."""
    while (task := line.receive()).kind == "verdict":
        if (number := os.fork()) == 0:
            answer_once(line, model, *task.values)
        if code := os.waitpid(number, 0)[1]:
            line.send("failed", "ChildProcessError", f"status {code}", "")


def answer_once(line: Line, model: Callable, x: Tensor, draws: int) -> NoReturn:
    """The logits of several calls, `(draws, N, K)`, or what stopped them; then this process is done."""
    try:
        with torch.no_grad():
            logits = [model(x.clone()) for _ in range(draws)]
        if all(isinstance(each, Tensor) for each in logits):
            line.send("verdict", torch.stack(logits).float())
        else:
            line.send("other", kind_of(logits[0]))
    except BaseException as error:
        line.send("failed", *told(error))
    os._exit(0)


# --- the process ------------------------------------------------------------------------------------------------------


def serve(twin: Sequence[int] = ()) -> None:
    """Read what to do, do it, and say how it ended.

    Args:
        twin: two pipes for a copy of this process, where processes can be copied.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    line = Line(questions, answers, twin)
    line.send("awake")
    kind, (memory, *values) = line.receive()
    limit(memory)
    try:
        {"attack": attack, "defense": defend}[kind](line, *values)
    except BaseException as error:  # whoever calls sys.exit has failed, too
        said = told(error)
        sys.stdout.flush()
        line.send("failed", *said)
        line.receive()  # the arena reads it, then ends this process


if __name__ == "__main__":
    serve()
