"""What may hang is done in a thread of its own, and waited for until a deadline.

A read from a file system that hangs can be neither interrupted nor given up: its thread stays until
the file system answers. So nothing is begun again while it hangs, nothing else has to wait for its
thread, and the threads are daemons: sentinel's end does not wait for them, as for asyncio's own.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from threading import Thread
from typing import Any, TypeVar

Done = TypeVar("Done")


class Aside:
    """Does one thing at a time."""

    def __init__(self, what: str) -> None:
        """Say *what* it is that may hang, as in ``reading keepalived.conf``."""
        self._what = what
        self._begun: Future[Any] | None = None

    async def run(self, function: Callable[[], Done], timeout_s: float) -> Done:
        """Return what *function* returns, or raise what it raises.

        Raises TimeoutError, in words, when it has not come back within *timeout_s*, and at once
        while an earlier one has not; OSError when no thread can be had.
        """
        if self._begun is not None and not self._begun.done():
            raise TimeoutError(f"{self._what} hangs")
        self._begun = begun = begin(function, self._what)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(begun)
        except TimeoutError as error:
            if not begun.done():
                raise TimeoutError(f"{self._what} hangs") from error
        return begun.result()  # in time: it was this process that was held up; or its own error


@dataclass(frozen=True, slots=True, kw_only=True)
class Asides:
    """What may hang, each by itself; what does goes on hanging under the next configuration."""

    keepalived_conf: Aside = field(default_factory=partial(Aside, "reading keepalived.conf"))
    haproxy_cfg: Aside = field(default_factory=partial(Aside, "reading HAProxy's configuration"))
    configuration: Aside = field(
        default_factory=partial(Aside, "looking at HAProxy's configuration")
    )
    listeners: Aside = field(default_factory=partial(Aside, "reading who listens"))


def begin(function: Callable[[], Done], what: str) -> Future[Done]:
    """Do *function* in a thread of its own, named *what*; return what will come of it.

    Raises OSError when no thread can be had (TasksMax= in systemd.resource-control(5), pids.max).
    """
    begun: Future[Done] = Future()
    begun.set_running_or_notify_cancel()  # nobody can take it back any more
    try:
        Thread(target=_work, args=(function, begun), name=what, daemon=True).start()
    except RuntimeError as error:  # which is all that it says of pthread_create's EAGAIN
        raise OSError(errno.EAGAIN, f"no thread for {what}") from error
    return begun


def _work(function: Callable[[], Done], begun: Future[Done]) -> None:
    """Hand on what comes of *function*; a bug is told where threads tell theirs as well."""
    try:
        begun.set_result(function())
    except OSError as error:
        begun.set_exception(error)
    except BaseException as error:
        begun.set_exception(error)
        raise
