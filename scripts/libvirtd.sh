#!/usr/bin/env bash
# A running libvirtd for the demo and the tests.
# Usage: libvirtd.sh start|stop|status
#   start   uses one that runs; else systemd's; else starts virtlogd and libvirtd itself and remembers that it did
#   stop    ends only what start has started itself
#   status  exit code 0 when libvirt answers
set -euo pipefail

# One state for the machine, as libvirtd itself: any checkout may end what another has started
state=${KVMFLEET_LIBVIRTD_STATE:-/run/kvmfleet-libvirtd}
export LC_ALL=C

# A user who is not in the group libvirt may ask by sudo
answers() {
    timeout 10 virsh -c qemu:///system -q version >/dev/null 2>&1 ||
        { [ "$(id -u)" -ne 0 ] && sudo -n timeout 10 virsh -c qemu:///system -q version >/dev/null 2>&1; }
}

by_systemd() {
    [ -d /run/systemd/system ]
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        sudo "$@"
    else
        echo "kvmfleet: libvirtd does not run, and starting it takes root: $*" >&2
        exit 1
    fi
}

wait_until_it_answers() {
    local deadline=$((SECONDS + 30))
    until answers; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            echo "kvmfleet: libvirtd was started and does not answer on qemu:///system after 30 s; 'virsh -c qemu:///system version' says:" >&2
            timeout 10 virsh -c qemu:///system version >&2 || true
            exit 1
        fi
        sleep 0.2
    done
}

is_process() {
    [ "$(cat "/proc/$1/comm" 2>/dev/null || true)" = "$2" ]
}

# Starts a daemon that writes its own pid file, unless it runs, and keeps that pid
start_daemon() {
    local name=$1 pid_file=/run/$1.pid
    if [ -s "$pid_file" ] && is_process "$(cat "$pid_file")" "$name"; then
        return
    fi
    as_root "$name" --daemon --pid-file "$pid_file"
    as_root install -d -m 0755 "$state"
    as_root cp "$pid_file" "$state/$name.pid"
}

# As udev does where it runs. With a /dev/kvm that root can open and QEMU's user cannot, libvirt examines QEMU anew, for seconds,
# at every single define and start.
let_qemu_open_kvm() {
    if [ -c /dev/kvm ] && getent group kvm >/dev/null && [ "$(stat --format '%a %G' /dev/kvm)" != "660 kvm" ]; then
        as_root chgrp kvm /dev/kvm
        as_root chmod 0660 /dev/kvm
    fi
}

stop_daemon() {
    local name=$1 kept=$state/$1.pid pid
    [ -s "$kept" ] || return 0
    pid=$(cat "$kept")
    # A pid may have been given to another process by now
    if is_process "$pid" "$name"; then
        as_root kill "$pid"
        local deadline=$((SECONDS + 20))
        while is_process "$pid" "$name"; do
            if [ "$SECONDS" -ge "$deadline" ]; then
                echo "kvmfleet: $name (pid $pid) does not end" >&2
                exit 1
            fi
            sleep 0.1
        done
    fi
    as_root rm -f "$kept"
}

case ${1:-} in
    start)
        if answers; then
            exit 0
        fi
        if by_systemd; then
            as_root systemctl start virtlogd.socket libvirtd
        else
            let_qemu_open_kvm
            start_daemon virtlogd
            start_daemon libvirtd
        fi
        wait_until_it_answers
        ;;
    stop)
        stop_daemon libvirtd
        stop_daemon virtlogd
        ;;
    status)
        if answers; then
            echo "libvirt answers on qemu:///system"
        else
            echo "libvirt does not answer on qemu:///system"
            exit 1
        fi
        ;;
    *)
        echo "usage: $0 start|stop|status" >&2
        exit 2
        ;;
esac
