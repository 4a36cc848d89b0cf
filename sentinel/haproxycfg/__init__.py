"""Enough of haproxy.cfg to know where the stats socket is and what can be probed.

This is no validator (``haproxy -c`` is), so nothing is refused and nothing raised: what is not
understood is passed over. ``.if`` is not evaluated: what stands in a conditional block is taken as
possible, and the listeners that really exist tell the truth. The parts: ``words`` splits a line,
``bind`` reads addresses and their options, ``parser`` keeps the sections, ``discovery`` turns
frontends into probes. It imports config alone, and checks and drivers do not import it.
"""

from sentinel.haproxycfg.bind import Bind
from sentinel.haproxycfg.discovery import Discovery, discover
from sentinel.haproxycfg.parser import Frontend, HaproxyCfg, StatsSocket, parse, read, statements

__all__ = [
    "Bind",
    "Discovery",
    "Frontend",
    "HaproxyCfg",
    "StatsSocket",
    "discover",
    "parse",
    "read",
    "statements",
]
