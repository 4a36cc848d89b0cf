"""What a keepalived that died has left, where a scenario has too few instances."""

from sentinel.actions import RemoveVips, StartKeepalived
from sentinel.core import CheckPolicy, Phase, Policy, State, step
from sentinel.events import (
    Event,
    Finished,
    InstanceTakenOver,
    KeepalivedServiceSeen,
    Observed,
    Tick,
)
from sentinel.model import (
    Code,
    Instance,
    Observation,
    Proc,
    Scope,
    ServiceState,
    Verdict,
)
from sentinel.vrrp import InstanceView, Vip, VrrpInstance, VrrpView

VIPS = {
    "VI_4": Vip(address="192.0.2.1", prefix=32, interface="eth0"),
    "VI_6": Vip(address="2001:db8::1", prefix=128, interface="eth0"),
}
POLICY = Policy(checks={"vrrp": CheckPolicy(scope=Scope.VRRP, rise=1, fall=1)})
DOWN_TIMER_S = 3.1  # of adverts of a second


class Node:
    """A node with an instance for each family, as the core sees it."""

    def __init__(self) -> None:
        """HAProxy serves, and keepalived has not been seen."""
        haproxy = Instance(master=None, worker=Proc(pid=100, start_ticks=1))
        self.state = State(phase=Phase.UP, instance=haproxy)

    def take(self, now_s: float, event: Event) -> list[tuple[Vip, ...]]:
        """Return what is to be removed after *event*."""
        self.state, actions = step(POLICY, self.state, event, now_s)
        assert not any(isinstance(action, StartKeepalived) for action in actions)
        return [action.vips for action in actions if isinstance(action, RemoveVips)]

    def end(self, now_s: float) -> None:
        """Let the removal under way end well, though the check has not seen so yet."""
        assert self.state.fencing is not None
        assert not self.take(now_s, Finished(action=self.state.fencing, ok=True))

    def see(self, now_s: float, *present: str, pids: tuple[int, ...] = ()) -> None:
        """Let the vrrp check see *pids*, and the VIPs of the instances in *present*."""
        instances = tuple(
            InstanceView(
                instance=VrrpInstance(
                    name=name, version=3, priority=254, advert_int_s=1.0, vips=(vip,)
                ),
                present=(vip,) if name in present else (),
            )
            for name, vip in VIPS.items()
        )
        observation = Observation(
            check="vrrp",
            scope=Scope.VRRP,
            verdict=Verdict.PASS if pids else Verdict.FAIL,
            code=Code.PROCOK if pids else Code.PROCERR,
            view=VrrpView(pids=pids, instances=instances),
        )
        assert not self.take(now_s, Observed(observation=observation, incarnation=0, begun_s=now_s))


def test_the_pause_between_removals_is_each_vip_s_own() -> None:
    """The peer takes one instance a moment after the other: the second VIP does not wait."""
    node = Node()
    node.see(0.0, "VI_4", "VI_6", pids=(7, 8))
    node.see(1.0, "VI_4", "VI_6")
    node.take(1.1, KeepalivedServiceSeen(service=ServiceState(active="failed", result="signal")))
    assert node.take(2.0, InstanceTakenOver(instance="VI_4")) == [(VIPS["VI_4"],)]
    node.end(2.1)
    assert node.take(2.2, InstanceTakenOver(instance="VI_6")) == [(VIPS["VI_6"],)]
    node.end(2.3)
    assert not node.take(2.4, Tick()), "what was tried is not tried again at once"


def test_a_keepalived_that_nobody_ever_saw_may_live() -> None:
    """Its executable may have any name: before the peer speaks for its VIP nothing is removed."""
    node = Node()
    node.see(1.0, "VI_4")
    node.take(
        1.1,
        KeepalivedServiceSeen(service=ServiceState(known=False, active="unknown", has_jobs=False)),
    )
    assert not node.take(1.1 + DOWN_TIMER_S, Tick())
    assert not node.take(1.1 + 10 * DOWN_TIMER_S, Tick())
    assert node.take(60.0, InstanceTakenOver(instance="VI_4")) == [(VIPS["VI_4"],)]
