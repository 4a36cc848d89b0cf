"""Users and groups where not every id exists: in a user namespace. Pure.

An ordinary user may map one id there, their own, as root's. Programs that want to be somebody else
(HAProxy's ``user``, keepalived's ``script_user``) then have to stay root, and do, if their user is
root by another name.
"""

from __future__ import annotations


def exists(number: int, id_map: str) -> bool:
    """Tell whether there is an id; *id_map* is what /proc/self/uid_map or gid_map says."""
    ranges = (tuple(map(int, line.split())) for line in id_map.splitlines())
    return any(first <= number < first + count for first, _, count in ranges)


def only_existing(text: str, *id_maps: str) -> str:
    """Give root's id to whom has none; *text* is passwd (uid and gid map) or group (gid map)."""
    lines = []
    for line in text.splitlines():
        fields = line.split(":")
        for number, id_map in enumerate(id_maps, start=2):
            known = not fields[number:] or not fields[number].isdecimal()
            if not known and not exists(int(fields[number]), id_map):
                fields[number] = "0"
        lines.append(":".join(fields))
    return "".join(f"{line}\n" for line in lines)
