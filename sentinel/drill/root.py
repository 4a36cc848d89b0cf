"""The root of a node: the machine's files, with layers of the node's own over what is written to.

A fresh root belongs to whoever builds it, and so do the layers. Where that is the root of a user
namespace, to whom the machine's files are nobody's, keepalived finds its scripts below folders of
root all the same (enable_script_security looks at every component of their path).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from sentinel.drill.confs import APART
from sentinel.drill.plan import Plan

#: Written to by programs, whatever the plan names.
_WRITTEN: Final = ("/etc", "/var", "/tmp")  # noqa: S108  (each node's own)
_DEVICES: Final = ("null", "zero", "full", "random", "urandom")
_SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108  (each node's own)

#: A shell script whose arguments are the paths of ``own``. An overlay shows no mounts below it, and
#: is refused over those that came from outside the user namespace; a file whose owner has no id in
#: here cannot be copied up, so that folders in which something is made are in the layer beforehand.
SETUP: Final = f"""
set -e
above=/run/above work=/run/work root=/run/root

liken() {{  # $2 to $1; what belongs to somebody who has no id here is root's
    chown --reference="$1" "$2" 2>/dev/null || :
    chmod --reference="$1" "$2"
}}
take() {{  # the machine's $1 into the layer
    if [ -d "$1" ]; then mkdir -p "$above$1"; else cp "$1" "$above$1"; fi
    liken "$1" "$above$1"
}}
holds_mounts() {{
    while read -r _ _ _ _ point _; do
        case $point in "$1"/*) [ -d "$point" ] && return ;; esac
    done </proc/self/mountinfo
    return 1
}}
show() {{  # the machine's $1 as it is
    if [ -d "$1" ]; then mkdir "$root$1"; else : >"$root$1"; fi
    mount --rbind "$1" "$root$1"
}}
cover() (  # the machine's $1, with the layer over it
    if [ -L "$1" ]; then
        cp -P "$1" "$root$1"
    elif [ -d "$1" ] && ! holds_mounts "$1"; then
        [ -d "$above$1" ] || take "$1"
        mkdir "$root$1"
        mkdir -p "$work$1"
        mount -t overlay -o "lowerdir=$1,upperdir=$above$1,workdir=$work$1" overlay "$root$1"
    elif [ -d "$above$1" ]; then
        mkdir "$root$1"
        liken "$1" "$root$1"
        for entry in "$1"/*; do cover "$entry"; done
    elif [ -f "$above$1" ]; then
        cp -p "$above$1" "$root$1"
    elif [ -e "$1" ]; then
        show "$1"
    fi
)

mount -t tmpfs -o mode=755,size=64m tmpfs /run
mkdir $above $work $root
mount --bind $root $root
for path; do
    [ ! -e "$path" ] || take "$path"
done
for entry in /*; do
    case $entry in
    /run | /dev) continue ;;
    esac
    if [ -L "$entry" ] || [ -e "$above$entry" ]; then
        cover "$entry"
    elif [ -d "$entry" ]; then
        show "$entry"
    fi
done
mkdir $root/run $root/dev
mkdir -m 1777 $root{_SHARED_MEMORY}
for device in {" ".join(_DEVICES)}; do
    show /dev/$device
done
cd $root
pivot_root . .  # pivot_root(2): the old root lies over the new one until it is taken off
umount -l .
cd /
ip link set lo up
echo ready
sleep infinity &
wait
"""


def own(plan: Plan) -> list[str]:
    """Return the paths that must be in a node's layer, those that lead to others first."""
    scripts = filter(None, map(shutil.which, plan.scripts))
    named = (Path(name).resolve() for name in (*_WRITTEN, *plan.folders, *scripts))
    every = {path for name in named for path in (name, *name.parents)}
    return sorted(str(path) for path in every if not APART.issuperset(path.parts[1:2]))
