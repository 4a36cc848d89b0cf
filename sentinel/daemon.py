"""The daemon's life: one lock, its signals, and one wiring after another as it is reloaded."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sentinel.aside import Asides
from sentinel.config import Config
from sentinel.configfile import ConfigError
from sentinel.drivers.lease import read_track
from sentinel.drivers.localsocket import LocalSocket
from sentinel.drivers.notify import Notifier
from sentinel.log import EventLog, configure
from sentinel.wiring import Lasting, Wiring, node_of


class AlreadyRunningError(Exception):
    """Another supervisor holds the lock, or it cannot be taken; the message says who and where."""


def serve(config: Config, reload: Callable[[], Config], *, dry_run: bool) -> int:
    """Supervise until SIGTERM or SIGINT; *reload* reads the configuration again at SIGHUP.

    Raises AlreadyRunningError when a second supervisor runs on this node: two would restart
    HAProxy against each other. A dry run acts on nothing and so takes no lock.
    """
    if dry_run:
        return asyncio.run(_Daemon(config, reload, dry_run=True).run())
    with _lock(Path(config.run_dir, "lock")):
        return asyncio.run(_Daemon(config, reload, dry_run=False).run())


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the lock file; it names its holder, and the kernel lets it go with the process."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise AlreadyRunningError(f"cannot lock {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            raise AlreadyRunningError(
                f"sentinel is already running as process {holder or '(unknown)'}, which holds"
                f" {path}: stop it first; a second one, for another HAProxy, needs another run_dir"
                " and no file or socket of the first"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


class _Daemon:
    def __init__(self, config: Config, reload: Callable[[], Config], *, dry_run: bool) -> None:
        self._config = config
        self._reload = reload
        self._dry_run = dry_run
        self._notifier = Notifier()
        self._log = self._open_log(config)
        self._status, self._control = _sockets(config)
        self._asides = Asides()
        self._wiring: Wiring | None = None
        self._next: Config | None = None  # read at SIGHUP, for when the present wiring has ended
        self._stopping = False

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit status."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGINT, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        loop.add_signal_handler(signal.SIGUSR1, self._check_now)
        self._log.emit("sentinel.started", "info", {"pid": os.getpid(), "dry_run": self._dry_run})
        try:
            await self._supervise()
        except Exception as error:  # the outermost edge: a bug is logged, and systemd restarts us
            self._log.crashed("sentinel.crashed", error)
            raise
        finally:
            self._notifier.stopping()
            self._status.close()
            self._control.close()
            self._report_end()
            self._log.close()
            self._notifier.close()
        return 0

    async def _supervise(self) -> None:
        """Run one wiring after another; what is known goes on through reloads."""
        while not self._stopping:
            self._wiring = Wiring(
                self._config,
                Lasting(
                    log=self._log,
                    notifier=self._notifier,
                    status=self._status,
                    control=self._control,
                    asides=self._asides,
                ),
                dry_run=self._dry_run,
                predecessor=self._wiring,
            )
            self._notifier.ready()
            await self._wiring.run()
            if self._next is not None:
                self._take_over(self._next)

    def _take_over(self, config: Config) -> None:
        """Go on with another configuration, now that nothing works by the old one any more."""
        if (config.log, config.node) != (self._config.log, self._config.node):
            self._log.close()
            self._log = self._open_log(config)
        if config.status != self._config.status or self._status.error:
            self._status.close()
            self._control.close()
            self._status, self._control = _sockets(config)
        self._config, self._next = config, None
        self._log.emit("sentinel.reloaded", "info", {})

    def _report_end(self) -> None:
        """Say that it ends, and in what it leaves keepalived: the track file stays as it is.

        That is right for a restart, and nobody's wish after a stop.
        """
        path = self._config.track_file
        left = ""
        if not self._dry_run and read_track(path) != 0:
            left = f"{path} leaves keepalived in FAULT: start sentinel, or echo 0 > {path}"
        fields = {"pid": os.getpid()} | ({"reason": left} if left else {})
        self._log.emit("sentinel.stopped", "warning" if left else "info", fields)

    def _stop(self) -> None:
        self._stopping = True
        if self._wiring is not None:
            self._wiring.stop()

    def _hang_up(self) -> None:
        """Take a new configuration if it is right; a wrong one changes nothing."""
        try:
            config = self._reload()
        except ConfigError as error:
            self._log.emit("sentinel.reload_refused", "error", {"reason": str(error)})
            return
        if config.run_dir != self._config.run_dir:
            cure = "run_dir changes only with a restart: systemctl restart sentinel"
            self._log.emit("sentinel.reload_refused", "error", {"reason": cure})
            return
        self._notifier.reloading()
        self._next = config
        if self._wiring is not None:
            self._wiring.stop()

    def _check_now(self) -> None:
        if self._wiring is not None:
            self._wiring.check_now()

    def _open_log(self, config: Config) -> EventLog:
        return configure(config.log, node=node_of(config))


def _sockets(config: Config) -> tuple[LocalSocket, LocalSocket]:
    """Return the sockets of status and control, which do not listen yet."""
    return (
        LocalSocket(Path(config.status_socket), config.status.group),
        LocalSocket(Path(config.control_socket), "", hears=True),
    )
