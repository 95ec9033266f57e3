"""A kernel in reserve: started and warm before a chapter is opened, which then need not wait for its imports.

Voila's own kernels in reserve run a whole notebook beforehand and exclude a page that shows results as they come.
"""

import asyncio
from pathlib import Path

PAUSE = 20  # seconds that the chapter opened last has the machine for itself before the next kernel is prepared


def with_spare(base: type, kernel_name: str, folder: Path) -> type:
    """A class of kernel managers that keep one kernel in reserve and hand it out to whoever asks next.

    Args:
        base: an asynchronous manager of kernels, such as jupyter_server's.
        kernel_name: of the kernels that are handed out; all are alike.
        folder: in which they run.
    Returns:
        the class.
    """

    class WithSpare(base):
        """Kernels, and one in reserve."""

        spare: asyncio.Task | None = None
        planned: asyncio.TimerHandle | None = None  # when the next one is prepared

        def prepare_spare(self) -> None:
            """Start a kernel that nobody waits for yet, unless there is one."""
            if self.spare is None:
                started = super().start_kernel(kernel_name=kernel_name, cwd=str(folder))
                self.spare = asyncio.ensure_future(started)

        async def start_kernel(self, **settings: object) -> str:
            """The kernel in reserve where there is one that lives, else a new one; both take the same settings."""
            reserved, self.spare = self.spare, None
            if self.planned is not None:
                self.planned.cancel()
            self.planned = asyncio.get_running_loop().call_later(PAUSE, self.prepare_spare)
            if reserved is not None and (found := await self._living(reserved)):
                return found
            return await super().start_kernel(**settings)

        async def _living(self, reserved: asyncio.Task) -> str | None:
            """The id of the kernel in reserve, unless it has died meanwhile."""
            from jupyter_core.utils import ensure_async

            try:
                found = await reserved
                if await ensure_async(self.get_kernel(found).is_alive()):
                    self.last_kernel_activity = self.get_kernel(found).last_activity = utc_now()
                    return found
            except Exception as error:  # whatever is the matter with it, a new kernel serves
                self.log.warning("The kernel in reserve did not start: %s", error)
            return None

        async def cull_kernel_if_idle(self, kernel_id: str) -> None:
            """A kernel in reserve is idle, and stays."""
            if self.spare is None or not self.spare.done() or await self.spare != kernel_id:
                await super().cull_kernel_if_idle(kernel_id)

    return WithSpare


def utc_now() -> object:
    """Now, as jupyter_server keeps it."""
    from jupyter_server._tz import utcnow

    return utcnow()
