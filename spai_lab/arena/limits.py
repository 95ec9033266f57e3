"""What the system can limit for the process of a submission, and what it cannot: Linux does all, others less.

Time is limited everywhere, since the arena itself looks at the clock and ends the process.
"""

import os
import sys
from contextlib import suppress

LARGEST_FILE = 64 * 2**20  # bytes of a file that a submission writes
MEMORY, FILES, GROUPS = "limit memory", "limit the size of files", "end what a submission starts together with it"
ORPHANS, TWINS = "find what leaves the submission's group", "copy a process, so that a defense is judged by itself"


def forks() -> bool:
    """Whether processes can be copied safely once the libraries are loaded: on Linux."""
    return sys.platform.startswith("linux") and hasattr(os, "fork")


def groups() -> bool:
    """Whether a process can be ended together with all that it started."""
    return hasattr(os, "killpg")


def missing() -> tuple[str, ...]:
    """What this system cannot do for the arena, in words; empty where nothing is missing.

    >>> isinstance(missing(), tuple)
    True
    """
    can = {
        MEMORY: has_limits() and forks(),
        FILES: has_limits(),
        GROUPS: groups(),
        ORPHANS: forks(),
        TWINS: forks(),
    }
    return tuple(words for words, there in can.items() if not there)


def has_limits() -> bool:
    """Whether the system has limits of resources."""
    try:
        import resource  # noqa: F401
    except ImportError:
        return False
    return True


def limit(megabytes: int) -> None:
    """Limit this process: memory beyond what is taken now, and files, where the system can.

    Args:
        megabytes: that it may take from here on.
    """
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
        with open("/proc/self/statm") as file:  # noqa: PTH123
            taken = int(file.read().split()[0]) * resource.getpagesize()
        most = taken + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
