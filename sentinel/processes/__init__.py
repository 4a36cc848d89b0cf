"""HAProxy's processes as Linux shows them: who they are, how they are, what they listen on.

Shared by the checks that look at processes and the driver that kills them. Nothing here judges
or acts.
"""
