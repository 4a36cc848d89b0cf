"""What is configured is what the core follows: every bound, and how a check is judged."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final

import pytest

from sentinel.config import (
    Backends,
    Command,
    Config,
    Hook,
    Keepalived,
    OnCrash,
    OnFail,
    OnLoss,
    Pace,
    Peer,
    Probe,
    Restart,
    Vrrp,
)
from sentinel.core import CheckPolicy, Policy
from sentinel.model import Observation, Scope
from sentinel.policy import check_policy, policy_of

#: For each field of Policy: a configuration in which it differs from its default, and how.
DIFFERENT: Final[dict[str, tuple[Config, Any]]] = {
    "restart_budget": (Config(restart=Restart(budget=7)), 7),
    "restart_window_s": (Config(restart=Restart(window_s=7.0)), 7.0),
    "backoff_s": (Config(restart=Restart(backoff_s=7.0)), 7.0),
    "backoff_max_s": (Config(restart=Restart(backoff_max_s=7.0)), 7.0),
    "verify_s": (Config(restart=Restart(verify_s=7.0)), 7.0),
    "stuck_s": (Config(restart=Restart(stuck_s=7.0)), 7.0),
    "stop_keepalived": (Config(keepalived=Keepalived(stop_on_failure=False)), False),
    "stop_after_s": (Config(keepalived=Keepalived(stop_after_s=7.0)), 7.0),
    "hold_s": (Config(keepalived=Keepalived(hold_s=7.0)), 7.0),
    "hold_max_s": (Config(keepalived=Keepalived(hold_max_s=7.0)), 7.0),
    "keepalived_budget": (Config(keepalived=Keepalived(budget=7)), 7),
    "fence": (Config(vrrp=Vrrp(fence=False)), False),
    "priority_file": (Config(hook=Hook(priority_file="/run/p")), "/run/p"),
    "degrade": (Config(backends=Backends(on_loss=OnLoss.ALERT)), False),
    "peer": (Config(peer=Peer(url="http://192.0.2.2:8406/")), True),
    "stay_on_crash": (Config(restart=Restart(on_crash=OnCrash.RESTART)), True),
    "call_within_s": (Config(hook=Hook(call_within_s=7.0)), 7.0),
}


@pytest.mark.parametrize("name", [field.name for field in fields(Policy) if field.name != "checks"])
def test_a_setting_changes_its_bound_and_no_other(name: str) -> None:
    """Whoever adds a bound adds what configures it; two that were mixed up would show here."""
    config, value = DIFFERENT[name]
    usual = policy_of(Config())
    assert policy_of(config) == replace(usual, **{name: value})
    assert getattr(usual, name) != value


def test_the_defaults_are_the_cores_own() -> None:
    """What is decided without a configuration is what an empty one decides, but for the file."""
    assert policy_of(Config()) == Policy(checks={}, priority_file="/run/sentinel/track-priority")


@pytest.mark.parametrize(
    ("hook", "path"),
    [
        (Hook(), "/run/sentinel/track-priority"),
        (Hook(track_file="/run/other/t"), "/run/other/t-priority"),
        (Hook(track_file="/run/other/t", priority_file="/run/p"), "/run/p"),
    ],
)
def test_the_priority_file_lies_beside_the_track_file(hook: Hook, path: str) -> None:
    """Unless it is named."""
    assert policy_of(Config(hook=hook)).priority_file == path


# --- how a check is judged ------------------------------------------------------------------------


PACE: Final = Pace(rise=5, fall=6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A check that is never run."""

    name: str
    scope: Scope
    pace: Pace = PACE

    async def __call__(self) -> Observation:
        """Nobody asks."""
        raise AssertionError(self.name)


CONFIG: Final = Config(
    probe=(Probe(name="shop"), Probe(name="blog", on_fail=OnFail.ALERT)),
    command=(Command(name="ntp"), Command(name="disk", on_fail=OnFail.YIELD)),
)


@pytest.mark.parametrize(
    ("name", "scope", "yields", "discovered"),
    [
        ("shop", Scope.FRONTEND, True, False),
        ("blog", Scope.FRONTEND, False, False),
        ("frontend/http-in:80", Scope.FRONTEND, True, True),
        ("ntp", Scope.COMMAND, False, False),
        ("disk", Scope.COMMAND, True, False),
        ("runtime", Scope.RUNTIME, False, True),
        ("process", Scope.PROCESS, False, False),
        ("listeners", Scope.LISTENER, False, False),
        ("backends", Scope.BACKEND, False, False),
        ("configuration", Scope.CONFIGURATION, False, False),
        ("vrrp", Scope.VRRP, False, False),
        ("peer", Scope.PEER, False, False),
    ],
)
def test_how_a_check_is_judged(name: str, scope: Scope, *, yields: bool, discovered: bool) -> None:
    """Frontends and commands yield as they are configured; what speaks of the pair never does."""
    assert check_policy(CONFIG, Named(name=name, scope=scope)) == CheckPolicy(
        scope=scope, rise=5, fall=6, yields=yields, discovered=discovered
    )
