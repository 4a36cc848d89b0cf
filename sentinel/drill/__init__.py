"""``sentinel drill``: a rehearsal of failures on one Linux machine, in namespaces of its own.

    commands/drill ──plan──▶ rehearsal (process 1 of the world) ──findings──▶ terminal, JSON, page

The parts: ``keepalivedconf`` and ``plan`` read the user's own files and say what the world must
hold; ``node`` and ``world`` build it: two nodes, a switch, web servers (``standins``) and a
client (``client``); ``faults`` declares what goes wrong and what is expected then; ``rehearsal``
tries one fault after the other, each in a new world; ``records`` is what was seen; ``page`` draws
it. Everything ends with the world's first process, which ends with the command.
"""
