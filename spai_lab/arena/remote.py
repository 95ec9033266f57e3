"""A defense that lives in another process, as a model: logits and gradients come through the pipe as raw arrays."""

import torch
from torch import Tensor, nn

from spai_lab.arena import rules
from spai_lab.arena.findings import Fouled
from spai_lab.arena.keeper import Clock, Keeper, Talk, texts, unexpected
from spai_lab.checks import check_logits

ANSWERING = "to answer all questions"


class Proxy(nn.Module):
    """A submitted defense as an attack meets it: differentiable, and without anything to look into.

    Args:
        keeper: of the process in which the defense answers.
        classes: how many logits it has to give.
        seconds: that all its answers together may take.
    """

    def __init__(self, keeper: Keeper, classes: int, seconds: float) -> None:
        super().__init__()
        self.keeper, self.classes, self.clock = keeper, classes, Clock(seconds)
        self.training = False
        self.questions = 0

    def forward(self, x: Tensor) -> Tensor:
        """Its logits; where a gradient will be asked for, the graph is kept on the other side."""
        if x.requires_grad and torch.is_grad_enabled():
            return Through.apply(x, self)
        return self.answer(x, keep=0)[0]

    def answer(self, x: Tensor, *, keep: int) -> tuple[Tensor, int]:
        """Checked logits `(N, K)`, and the number of the answer.

        Raises:
            Fouled: late, gone, or no logits.
        """
        self.questions += len(x)
        values = self.ask("forward", "logits", x.detach().contiguous(), keep)
        if len(values) != 2 or not isinstance(values[1], int):
            raise Fouled(rules.GARBLED.broken(message="an answer without its number"))
        logits, number = values
        return self.checked(logits, (len(x), self.classes)), number

    def checked(self, logits: object, shape: tuple[int, ...]) -> Tensor:
        """Logits of this shape; `Fouled` where they are none."""
        accepted = f"logits of shape {shape}, float32"
        if not isinstance(logits, Tensor) or logits.shape != shape or logits.dtype != torch.float32:
            came = f"{tuple(logits.shape)}, {logits.dtype}" if isinstance(logits, Tensor) else type(logits).__name__
            raise Fouled(rules.NO_LOGITS.broken(message=f"{came} came; accepted: {accepted}"))
        rows = logits.reshape(-1, self.classes)
        try:
            check_logits(rows, torch.zeros(len(rows), dtype=torch.int64))
        except ValueError as error:
            raise Fouled(rules.NO_LOGITS.broken(message=str(error).rstrip("."))) from None
        return logits

    def verdict(self, x: Tensor, draws: int) -> Tensor | None:
        """What copies of the model that were asked nothing else read in the images, `(draws, N)`; None without them.

        Raises:
            Fouled: late, gone, or no logits.
        """
        if self.keeper.twin is None:
            return None
        values = self.ask("verdict", "verdict", x.detach().contiguous(), draws, of=self.keeper.twin)
        return self.checked(values[0] if values else None, (draws, len(x), self.classes)).argmax(2)

    def gradient(self, number: int, v: Tensor, x: Tensor) -> Tensor:
        """How the logits of an answer, weighed by `v`, change with the pixels."""
        values = self.ask("backward", "gradient", number, v.contiguous())
        found = values[0] if values else None
        if not isinstance(found, Tensor) or found.shape != x.shape or found.dtype != x.dtype:
            raise Fouled(rules.GARBLED.broken(message="a gradient of another shape"))
        if not found.isfinite().all():
            raise Fouled(rules.NO_LOGITS.broken(message="its gradients are NaN or infinite; accepted: finite ones"))
        return found

    def ask(self, kind: str, expected: str, *values: object, of: Talk | None = None) -> tuple:
        """Ask the other side, or its twin, on the clock of the defense."""
        with self.clock:
            self.keeper.send(kind, *values, to=of)
            answer = self.keeper.receive(seconds=self.clock.left, allowed=self.clock.seconds, doing=ANSWERING, of=of)
        if answer.kind == "other":
            raise Fouled(rules.NO_LOGITS.broken(message=f"{texts(answer, 1)[0]} came; accepted: a tensor of logits"))
        if answer.kind != expected:
            raise Fouled(unexpected(answer, expected))
        return answer.values


class Through(torch.autograd.Function):
    """One answer, and the way back through it."""

    @staticmethod
    def forward(ctx: object, x: Tensor, proxy: Proxy) -> Tensor:
        """The logits; the number of the answer is kept."""
        logits, ctx.number = proxy.answer(x, keep=1)
        ctx.proxy = proxy
        ctx.save_for_backward(x.detach())
        return logits

    @staticmethod
    def backward(ctx: object, v: Tensor) -> tuple[Tensor, None]:
        """The vector times the Jacobian, from the other side."""
        (x,) = ctx.saved_tensors
        return ctx.proxy.gradient(ctx.number, v, x), None
