#!/bin/sh
#
# chk_sentinel.sh: the script of keepalived's vrrp_script. Exit 0: this node may hold the VIP;
# exit 1: it may not. Nothing else is ever said, whatever is read.
#
#     chk_sentinel.sh [LEASE [PIDFILE [SIGN [PROC]]]]
#
# sentinel renews a lease, "OK <deadline>" or "FAIL <deadline>", after every completed pass of its
# loop; the deadline is in hundredths of a second of the clock that /proc/uptime shows. While the
# lease is good, it is the verdict. Once it is over (sentinel is dead, hung, or not yet started) the
# script looks for itself: does a process of HAProxy's pidfile live?
#
# keepalived runs this every second or two, for years, on every node. Hence the rules of the file:
# - Builtins alone: nothing is forked or executed, so it costs what starting a shell costs and needs
#   neither PATH nor a free process slot. Any POSIX sh will do.
# - It waits for nothing: only plain files are opened (a FIFO would block), and of each at most a
#   few lines are read.
# - Numbers are checked before they reach arithmetic, which would otherwise end the shell with an
#   exit code of its own: digits alone, no leading zero (octal), nine at most (32-bit shells).
# - No trap: a script that answers keepalived's SIGTERM with exit 0 turns a timeout into a success.

LC_ALL=C # [0-9] means the ten digits
lease=${1:-/run/sentinel/lease}
pidfile=${2:-/run/haproxy.pid}
sign=${3:-/run/sentinel/hook-called}
proc=${4:-/proc}

ahead_max_s=61 # the longest lease (60 s, hook.lease in sentinel.toml), rounded up
pids_max=64    # HAProxy never wrote more: nbproc ended at 64

may_hold_vip() {
    # The lease before the clock: the other way round, one renewed in between could seem too long.
    read_lease
    leased=$?
    if read_uptime; then
        leave_sign
        if [ "$leased" -eq 0 ] && lease_is_good; then
            [ "$word" = OK ]
            return
        fi
    fi
    haproxy_lives
}

# Sets word and deadline. sentinel replaces the file by rename(2): a line without an end is not its.
read_lease() {
    [ -f "$lease" ] && read -r word deadline rest <"$lease" || return 1
    case $word in OK | FAIL) ;; *) return 1 ;; esac
    deadline_s=${deadline%??}
    deadline_cs=${deadline#"$deadline_s"}
    [ -z "$rest" ] && is_number "$deadline_s" && is_hundredths "$deadline_cs"
}

read_uptime() {
    [ -f "$proc/uptime" ] && read -r uptime rest <"$proc/uptime" || return 1
    uptime_s=${uptime%.*}
    uptime_cs=${uptime#*.}
    is_number "$uptime_s" && is_hundredths "$uptime_cs"
}

# A deadline too far ahead is as much garbage as one that has passed: no lease lasts that long.
# The 1 before the hundredths keeps 08 and 09 from being read as octal.
lease_is_good() {
    ahead_s=$((deadline_s - uptime_s))
    [ "$ahead_s" -ge 0 ] && [ "$ahead_s" -le "$ahead_max_s" ] &&
        [ $((ahead_s * 100 + 1$deadline_cs - 1$uptime_cs)) -ge 0 ]
}

# Tells sentinel that keepalived still calls. Written in place ("<>" does not truncate), so that the
# reader never finds it empty and a full disk changes nothing.
leave_sign() {
    [ -f "$sign" ] || [ ! -e "$sign" ] && echo "$uptime" 1<>"$sign"
}

# The pidfile holds the master's pid alone, or one pid a line.
haproxy_lives() {
    [ -f "$pidfile" ] || return 1
    pids=0
    while [ "$pids" -lt "$pids_max" ] && { read -r pid rest || [ -n "$pid" ]; }; do
        is_number "$pid" && is_haproxy "$pid" && return
        pids=$((pids + 1))
    done <"$pidfile"
    return 1
}

# The process is named haproxy, or haproxy-2.8, and is not a zombie (Z), dead (X, x), stopped (T) or
# traced (t). Its state stands behind the last ") ": the name may hold one as well.
is_haproxy() {
    [ -f "$proc/$1/stat" ] && read -r line <"$proc/$1/stat" || return 1
    state=${line##*") "}
    case $line in "$1 (haproxy"*") $state") ;; *) return 1 ;; esac
    case $state in
    [ZXxTt]" "*) return 1 ;;
    ?" "*) ;;
    *) return 1 ;;
    esac
}

is_number() {
    case $1 in
    0) ;;
    '' | 0* | *[!0-9]* | ??????????*) return 1 ;;
    esac
}

is_hundredths() {
    case $1 in [0-9][0-9]) ;; *) return 1 ;; esac
}

may_hold_vip 2>/dev/null && exit 0
exit 1
