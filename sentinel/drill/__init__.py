"""``sentinel drill``: a rehearsal of failures on one Linux machine, in namespaces of its own.

    commands/drill ── outside ──▶ rehearsal (process 1 of the worlds) ──findings──▶ terminal, page

``plan`` reads the user's own files, with ``confs`` (keepalived.conf), ``conditions`` and
``servers`` (haproxy.cfg) and ``cables``, and says what a world must hold; ``node``, with its
``root`` and ``furniture``, and ``world``, by ``laying``, build it: two nodes, a switch, web servers
(``standins``) and a ``client``; ``users`` and ``groups`` are what differs without root; ``witness``
takes in what is seen. ``faults`` is what a fault is, ``catalogue`` lists them, ``deeds`` (to
programs) and ``surroundings`` (to the rest) make them happen; ``rehearsal`` tries one after the
other, each in a new world. ``records`` is what was found; ``page``, ``timeline`` and ``style`` draw
it. Everything ends with the worlds' first process, which ends with the command.
"""
