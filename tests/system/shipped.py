"""What a load balancer of these tests is made of, and how it gets back to a good state."""

from __future__ import annotations

from typing import Final

from lab.image import PROJECT, VENV

SENTINEL: Final = f"{VENV}/bin/sentinel"
SENTINEL_TOML: Final = "/etc/sentinel/sentinel.toml"
HAPROXY_CFG: Final = "/etc/haproxy/haproxy.cfg"
KEEPALIVED_CONF: Final = "/etc/keepalived/keepalived.conf"
HOOK: Final = "/usr/libexec/keepalived/chk_sentinel.sh"
ADDRESS: Final = "192.168.1.189"
NEIGHBOUR: Final = "192.168.1.222"
VIP: Final = "192.168.1.99"
FRONTENDS: Final = {"frontend/http-in:80", "frontend/sentinel:8405"}
BUDGET: Final = 2
#: A window of the budget that ends within a test.
WINDOW_S: Final = 5.0
HOLD_S: Final = 1.5
#: Arguments of Python; a folder to serve follows.
WEB_SERVER: Final = ("-m", "http.server", "81", "--directory")
#: Shell commands; haproxy.cfg is their standard input.
RESET: Final = f"""\
rm -f /run/hang
systemctl kill --signal=KILL sentinel 2>/dev/null
systemctl stop --no-block sentinel
systemctl stop 'test-*' 2>/dev/null
while mountpoint -q /run/sentinel; do
    systemctl stop keepalived
    umount /run/sentinel
done
rm -f /run/systemd/system/*.service.d/test.conf /run/sentinel/*.json /run/sentinel/lease
rm -f {SENTINEL_TOML}
chmod 755 {HOOK}
systemctl unmask --quiet haproxy keepalived
systemctl daemon-reload
systemctl stop sentinel
systemctl reset-failed
killall --quiet --signal KILL haproxy
systemctl kill --signal=CONT rsyslog 2>/dev/null
systemctl start rsyslog syslog.socket
cat >{HAPROXY_CFG}
systemctl restart haproxy
systemctl reset-failed
echo 0 >/run/sentinel/track
echo 0 >/run/sentinel/track-priority
systemctl start keepalived
"""


def haproxy_cfg(*web_servers: str) -> str:
    """Return the shipped configuration, for fewer connections; it may have other *web_servers*."""
    shipped = (PROJECT / "contrib/haproxy/haproxy.cfg").read_text()
    configuration = shipped.replace("maxconn 20000 ", "maxconn 2000 ")
    assert configuration != shipped
    for own, other in zip((ADDRESS, NEIGHBOUR), web_servers, strict=False):
        assert f" {own}:81 " in configuration
        configuration = configuration.replace(f" {own}:81 ", f" {other}:81 ")
    return configuration


def keepalived_conf(pair: str, role: str) -> str:
    """Return the shipped configuration of the *role* (master, backup) in a *pair*."""
    return (PROJECT / f"contrib/keepalived/{pair}/{role}.conf").read_text()


def quick(budget: int = BUDGET, window_s: float = 60.0) -> str:
    """Return a sentinel.toml in which everything that waits is short, and every phase is logged."""
    return f"""\
[log]
level = "debug"
[restart]
budget = {budget}
window = "{window_s:g}s"
backoff = "200ms"
backoff_max = "1s"
verify = "2s"
[keepalived]
stop_after = "500ms"
hold = "{HOLD_S * 1000:.0f}ms"
"""


QUICK: Final = quick()
