"""Enough of keepalived.conf to know the VIPs, who claims them, and what a hand-over needs.

This is no validator (``keepalived -t`` is), so nothing is raised: what keepalived would drop is
dropped here too, and said in a note with its place and its cure. The rules are keepalived.conf(5)'s
and, where that is silent, those of version 2.2.7's parser. The parts: ``files`` finds and opens,
``definitions`` and ``sequences`` expand, ``source`` gives the lines that remain, ``blocks`` nests
them, ``trackers``, ``addresses`` and ``instances`` give them their meaning, ``reader`` puts it all
together and ``lint`` says what stands in sentinel's way. It imports ``vrrp`` alone.
"""

from sentinel.keepalivedcfg.lint import findings
from sentinel.keepalivedcfg.reader import KeepalivedConf, read

__all__ = ["KeepalivedConf", "findings", "read"]
