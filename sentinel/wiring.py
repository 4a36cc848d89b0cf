"""The composition root of the daemon: a Config becomes a Supervisor with all its parts.

Everything that is plugged into something else is plugged here, and only here: checks and drivers
know nothing of each other.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections import deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sentinel import __version__, orders, peerdocument
from sentinel.aside import Asides
from sentinel.checks import Check
from sentinel.checks.backends import BackendsCheck
from sentinel.checks.command import CommandCheck
from sentinel.checks.configuration import ConfigurationCheck
from sentinel.checks.http import ProbeCheck, look
from sentinel.checks.listeners import PACE as LISTENERS_PACE
from sentinel.checks.listeners import ListenersCheck
from sentinel.checks.process import ProcessCheck
from sentinel.checks.runtime import RuntimeCheck
from sentinel.config import Config
from sentinel.core import Memory, State
from sentinel.drivers import service, signals
from sentinel.drivers.lease import KeepalivedFiles
from sentinel.drivers.localsocket import LocalSocket
from sentinel.drivers.notify import Notifier
from sentinel.events import Event
from sentinel.log import EventLog
from sentinel.memory import invocation_file, memory_file
from sentinel.model import Instance
from sentinel.pair import Pair
from sentinel.parts import Parts
from sentinel.policy import check_policy, policy_of
from sentinel.processes.invocation import Invocation, running
from sentinel.snapshot import Surroundings, snapshot
from sentinel.supervisor import HISTORY_MAX, History, Supervisor
from sentinel.survey import READ_TIMEOUT_S, Survey

#: A lease is renewed this many times before it would run out.
RENEWALS_PER_LEASE = 6


def boottime_s() -> float:
    """Return CLOCK_BOOTTIME: it neither steps nor sleeps, and /proc/uptime shows it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasting:
    """What goes on from one configuration to the next."""

    log: EventLog
    notifier: Notifier
    status: LocalSocket
    control: LocalSocket
    asides: Asides


class Wiring:
    """One configuration at work: the supervisor, its checks and its drivers."""

    def __init__(
        self,
        config: Config,
        lasting: Lasting,
        *,
        dry_run: bool,
        predecessor: Wiring | None = None,
    ) -> None:
        """Wire *config*; go on from where *predecessor* ended, if there was one."""
        self.config = config
        self.log = lasting.log
        self.notifier = lasting.notifier
        self._status = lasting.status
        self._control = lasting.control
        self._asides = lasting.asides
        self._dry_run = dry_run
        self._stopped = False
        self._files = KeepalivedFiles(config)
        self._memory = memory_file(Path(config.run_dir, "memory.json"))
        self._invocations = invocation_file(Path(config.run_dir, "invocation.json"))
        self._invoked: Invocation | None = None
        self._invoked_pid = 0  # whose command line that was
        self._configuration = ConfigurationCheck(
            config.haproxy,
            config.configuration,
            pid=self._main_pid,
            aside=self._asides.configuration,
            invocation=self._invocations.load(),
        )
        self._keepalived: service.Service | None = None
        self._pair = Pair(
            _unheard(config) if dry_run else config,
            node=node_of(config),
            view=lambda: self.state.vrrp,
            keepalived_pid=lambda: self._keepalived.main_pid if self._keepalived else 0,
            wake=self._wake,
            tell=self._tell,
            aside=self._asides.keepalived_conf,
        )
        aside = self._asides.haproxy_cfg
        self._survey = Survey(config, self._invocation, self._pair.local, aside, ProbeCheck)
        self._haproxy: service.Service | None = None
        self._supervisor: Supervisor | None = None
        self._predecessor = predecessor
        if predecessor is None:
            self.started_s = boottime_s()
            self._remembered = State(memory=self._memory.load() or Memory())
            if self._memory.error:
                lasting.log.emit("memory.lost", "error", {"reason": self._memory.error})
            self.history: History = deque(maxlen=HISTORY_MAX)
        else:
            self.started_s = predecessor.started_s
            self.history = predecessor.history

    async def run(self) -> None:
        """Supervise until ``stop``."""
        alive = self._alive
        self._haproxy = await service.choose(self.config.haproxy, alive=alive)
        keepalived = await service.choose(self.config.keepalived, alive=lambda: True)
        process = ProcessCheck(
            self.config.haproxy,
            self.config.process,
            main_pid=lambda: self._haproxy.main_pid if self._haproxy else 0,
            on_change=lambda: self._wake("process"),
        )
        await self._haproxy.look()
        self._keepalived = keepalived
        await keepalived.look()
        supervisor = Supervisor(
            policy_of(self.config),
            self.state,  # only now: the predecessor's supervisor has taken orders until here
            Parts(
                haproxy=self._haproxy,
                keepalived=keepalived,
                kill=signals.kill,
                remove_vip=self._pair.remove,
                files=self._files,
                renew_every_s=self.config.hook.lease_s / RENEWALS_PER_LEASE,
                log=self.log,
                notifier=self.notifier,
                memory=self._memory,
                clock=boottime_s,
                checks=(process, *self._fixed_checks(), *self._pair.checks),
                beside=(self._serve_peer,),
                discover=self._discover,
                check_policy=partial(check_policy, self.config),
                dry_run=self._dry_run,
            ),
            self.history,
        )
        self._supervisor, self._predecessor = supervisor, None
        if not self._dry_run:  # at once, or the predecessor's supervisor would take one more order
            await self._control.open(lambda line: orders.take(line, self._tell))
        await self._status.open(lambda _line: self._document(supervisor))
        for error in filter(None, (self._status.error, self._control.error)):
            # which a status that nobody can ask for would keep to itself
            self.log.emit("status.unavailable", "error", {"reason": error})
        if self._stopped:  # while the service manager was being asked
            supervisor.stop()
        try:
            await supervisor.run()
        finally:
            process.close()
            self._pair.close()

    @property
    def state(self) -> State:
        """What is known now, or was at the end."""
        if self._supervisor is not None:
            return self._supervisor.state
        return self._predecessor.state if self._predecessor is not None else self._remembered

    def stop(self) -> None:
        """End the supervisor; HAProxy, keepalived, lease and track file are left as they are."""
        self._stopped = True
        if self._supervisor is not None:
            self._supervisor.stop()

    def check_now(self) -> None:
        """Run every check at once."""
        if self._supervisor is not None:
            self._supervisor.wake_all()

    # --- checks ---------------------------------------------------------------------------------

    def _fixed_checks(self) -> tuple[Check, ...]:
        config = self.config
        backends = BackendsCheck(self._survey.stats_socket, config.backends, look)
        return (
            self._configuration,
            ListenersCheck(config.haproxy, LISTENERS_PACE, self._instance, self._asides.listeners),
            RuntimeCheck(self._survey.stats_socket, config.runtime, self._worker_pid),
            *((backends,) if config.backends.enabled else ()),
            *(ProbeCheck(probe) for probe in config.probe),
            *(CommandCheck(command) for command in config.command),
        )

    async def _discover(self, state: State) -> tuple[Check, ...] | None:
        """Return a check for each probe that is to be made, the same one for the same probe."""
        await self._refresh_pair()
        return await self._survey.find(state)

    async def _refresh_pair(self) -> None:
        """Follow keepalived.conf, and say what people should know of it."""
        if await self._pair.refresh():
            for words in self._pair.advice:
                self.log.emit("keepalived.advice", "warning", {"reason": words})

    async def _serve_peer(self) -> None:
        """Tell the peer what it asks, until cancelled."""
        node = node_of(self.config)

        def document() -> str:
            supervisor, time = self._supervisor, datetime.now(UTC).isoformat(timespec="seconds")
            policy = supervisor.policy if supervisor else policy_of(self.config)
            now_s = boottime_s()
            return peerdocument.document(policy, self.state, node=node, now_s=now_s, time=time)

        await self._pair.serve(document)

    async def _invocation(self) -> Invocation:
        """Return how HAProxy runs now, else how it was last seen to run.

        Each main process is read once, and aside: the command line of one that hangs may hang its
        readers, and so may its files. Raises OSError, a TimeoutError after READ_TIMEOUT_S.
        """
        pid = self._main_pid()
        if pid not in {0, self._invoked_pid}:
            known = self._invoked or self._configuration.invocation
            read = partial(running, pid, self.config.haproxy, known)
            found = await self._asides.haproxy_cfg.run(read, READ_TIMEOUT_S)
            if found is not None:
                self._invoked, self._invoked_pid = found, pid
        if self._invoked is not None and not self._dry_run:
            self._invocations.save(self._invoked)
        return self._invoked or self._configuration.invocation

    # --- what the parts ask each other -----------------------------------------------------------

    def _tell(self, event: Event) -> None:
        if self._supervisor is not None:
            self._supervisor.tell(event)

    def _wake(self, name: str) -> None:
        if self._supervisor is not None:
            self._supervisor.wake(name)

    def _instance(self) -> Instance | None:
        return self._supervisor.state.instance if self._supervisor else None

    def _worker_pid(self) -> int:
        instance = self._instance()
        return instance.worker.pid if instance and instance.worker else 0

    def _main_pid(self) -> int:
        instance = self._instance()
        main = (instance.master or instance.worker) if instance else None
        return main.pid if main else 0

    def _alive(self) -> bool:
        return self._main_pid() != 0

    # --- status ----------------------------------------------------------------------------------

    def _document(self, supervisor: Supervisor) -> str:
        now_s = boottime_s()
        document = snapshot(
            supervisor.policy,
            supervisor.state,
            supervisor.history,
            self._surroundings(supervisor, now_s),
            now_s,
        )
        return json.dumps(document)

    def _surroundings(self, supervisor: Supervisor, now_s: float) -> Surroundings:
        written_s = supervisor.lease_written_s
        errors = (
            self._files.error,
            self._memory.error,
            self._invocations.error,
            self._status.error,
            self._control.error,
            self._pair.error,
            *self._survey.notes,
        )
        return Surroundings(
            node=node_of(self.config),
            version=__version__,
            pid=os.getpid(),
            started_s=self.started_s,
            lease_written_s=None if math.isinf(written_s) else written_s,
            lease_s=self.config.hook.lease_s,
            hook_age_s=self._files.called_age_s(now_s),
            errors=tuple(error for error in errors if error),
            log_dropped=self.log.dropped.total,
            advice=self._pair.advice,
            dry_run=self._dry_run,
        )


def node_of(config: Config) -> str:
    """Return this node's name: the configured one, else the host's."""
    return config.node or socket.gethostname()


def _unheard(config: Config) -> Config:
    """Return what leaves keepalived's FIFO and the peer's questions to the sentinel that acts."""
    vrrp, peer = replace(config.vrrp, enabled=False), replace(config.peer, listen="")
    return replace(config, vrrp=vrrp, peer=peer)
