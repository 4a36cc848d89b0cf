"""One configuration after another at work: what is known, and what is ordered, goes on."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from haproxies import DEADLINE_S

from sentinel import orders
from sentinel.aside import Asides
from sentinel.config import Config, Haproxy, Keepalived, Log, Manager, Vrrp
from sentinel.drivers.localsocket import LocalSocket
from sentinel.drivers.notify import Notifier
from sentinel.events import Order, Verb
from sentinel.log import configure
from sentinel.wiring import Lasting, Wiring

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

#: A service manager that answers only when the file "slow" is gone.
SYSTEMCTL = """\
#!/bin/sh
cd "$(dirname "$0")" || exit
if [ -e slow ]; then : > asked; fi
while [ -e slow ]; do sleep 0.01; done
exit 1
"""


async def until(holds: Callable[[], bool]) -> None:
    """Wait until *holds*, up to a deadline."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.005)


async def give(order: Order, control: Path) -> str:
    """Give an order as ``sentinel pause`` does; return the answer."""
    reader, writer = await asyncio.open_unix_connection(control)
    writer.write(orders.write(order).encode() + b"\n")
    answer = (await reader.readline()).decode().rstrip()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_an_order_given_during_a_reload_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is taken while the service manager is being asked, and the next supervisor knows of it."""
    systemctl, slow, control = (tmp_path / name for name in ("systemctl", "slow", "control.sock"))
    systemctl.write_text(SYSTEMCTL)
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    config = Config(
        run_dir=str(tmp_path),
        haproxy=Haproxy(
            manager=Manager.SYSTEMD, config=(str(tmp_path / "haproxy.cfg"),), pidfile="/run/no.pid"
        ),
        keepalived=Keepalived(manager=Manager.COMMANDS, start=("true",), stop=("true",)),
        vrrp=Vrrp(enabled=False),
        log=Log(target="none"),
    )
    lasting = Lasting(
        log=configure(config.log, node="lb1"),
        notifier=Notifier(),
        status=LocalSocket(tmp_path / "status.sock", ""),
        control=LocalSocket(control, "", hears=True),
        asides=Asides(),
    )
    try:
        async with asyncio.TaskGroup() as group:
            first = Wiring(config, lasting, dry_run=False)
            running = group.create_task(first.run())
            await until(control.exists)
            first.stop()
            await running

            slow.touch()
            second = Wiring(config, lasting, dry_run=False, predecessor=first)
            running = group.create_task(second.run())
            await until((tmp_path / "asked").exists)
            assert await give(Order(verb=Verb.PAUSE, by="eve"), control) == orders.TAKEN
            second.stop()
            slow.unlink()
            await running
        assert [intent.by for intent in second.state.memory.intents] == ["eve"]
        assert second.history is first.history
    finally:
        lasting.status.close()
        lasting.control.close()
        lasting.notifier.close()
        lasting.log.close()
