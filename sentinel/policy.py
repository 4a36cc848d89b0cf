"""How a Config becomes the Policy that the core follows."""

from __future__ import annotations

from typing import Final

from sentinel.checks import Check
from sentinel.config import Config, OnCrash, OnFail, OnLoss
from sentinel.core import CheckPolicy, Policy
from sentinel.model import Scope

#: None leaves it to keepalived's timers.
_STAY: Final = {OnCrash.AUTO: None, OnCrash.YIELD: False, OnCrash.RESTART: True}


def policy_of(config: Config) -> Policy:
    """Return what the core has to follow; the checks join it as they begin."""
    return Policy(
        checks={},
        restart_budget=config.restart.budget,
        restart_window_s=config.restart.window_s,
        backoff_s=config.restart.backoff_s,
        backoff_max_s=config.restart.backoff_max_s,
        verify_s=config.restart.verify_s,
        stuck_s=config.restart.stuck_s,
        stop_keepalived=config.keepalived.stop_on_failure,
        stop_after_s=config.keepalived.stop_after_s,
        hold_s=config.keepalived.hold_s,
        hold_max_s=config.keepalived.hold_max_s,
        keepalived_budget=config.keepalived.budget,
        fence=config.vrrp.fence,
        priority_file=config.priority_file,
        degrade=config.backends.on_loss is OnLoss.DEGRADE,
        peer=bool(config.peer.url),
        stay_on_crash=_STAY[config.restart.on_crash],
        call_within_s=config.hook.call_within_s,
    )


def check_policy(config: Config, check: Check) -> CheckPolicy:
    """Return how the results of *check* are judged."""
    yields, discovered = False, check.scope is Scope.RUNTIME
    explicit = {p.name: p.on_fail for p in config.probe} | {
        c.name: c.on_fail for c in config.command
    }
    if check.scope is Scope.FRONTEND:
        discovered = check.name not in explicit
        yields = explicit.get(check.name, OnFail.YIELD) is OnFail.YIELD
    elif check.scope is Scope.COMMAND:
        yields = explicit[check.name] is OnFail.YIELD
    return CheckPolicy(
        scope=check.scope,
        rise=check.pace.rise,
        fall=check.pace.fall,
        yields=yields,
        discovered=discovered,
    )
