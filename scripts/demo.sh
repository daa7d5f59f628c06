#!/usr/bin/env bash
# A VM out of a real cloud image on this machine: set-up, image, VM, the same again without a change, and how to log in.
# Called by `make demo`, which has made .venv. KVMFLEET_DEMO_VM names the VM (default demo).
set -euo pipefail

cd "$(dirname "$0")/.."
vm=${KVMFLEET_DEMO_VM:-demo}
export PATH=$PWD/.venv/bin:/usr/sbin:/sbin:$PATH ANSIBLE_COLLECTIONS_PATH=$PWD/.ansible/collections
inventory=inventories/local.yml
state=.ansible/demo
mkdir -p "$state"

become=()
if [ "$(id -u)" -ne 0 ]; then
    become=(--become)
    sudo -n true 2>/dev/null || become+=(--ask-become-pass)
fi

step() {
    printf '\n=== %s\n' "$*"
}

system_virsh() {
    if [ "$(id -u)" -eq 0 ]; then
        virsh -c qemu:///system -q "$@"
    else
        sudo virsh -c qemu:///system -q "$@"
    fi
}

# What was there before is not the demo's to remove
note_what_is_there() {
    local vms pools
    if [ -s "$state/started" ]; then
        if [ "$(cat "$state/started")" != "$vm" ]; then
            echo "kvmfleet: the demo has made the VM $(cat "$state/started"); run make demo-clean before making $vm" >&2
            exit 1
        fi
        return 0
    fi
    # Lists, so that a libvirt that cannot be asked ends the demo instead of looking like one that has nothing
    vms=$(system_virsh list --all --name)
    pools=$(system_virsh pool-list --all --name)
    if grep -qxF "$vm" <<<"$vms"; then
        touch "$state/vm-was-there"
    fi
    if grep -qE '^ *kvmfleet *$' <<<"$pools"; then
        touch "$state/pool-was-there"
    fi
    if [ -e ~/.ssh/kvmfleet/"$vm" ]; then
        touch "$state/key-was-there"
    fi
    echo "$vm" >"$state/started"
}

playbook() {
    local name=$1
    shift
    ansible-playbook -i "$inventory" "playbooks/$name.yml" "${become[@]}" "$@"
}

create() {
    playbook create_vm -e vm_name="$vm" -e vm_image=debian:12 -e vm_memory=768MiB -e vm_vcpus=1 -e vm_wait=cloud_init -e vm_wait_timeout=1800
}

began=$SECONDS
step "Packages and libvirt"
scripts/packages.sh run image
scripts/libvirtd.sh start
note_what_is_there

step "This machine as a KVM host"
playbook setup_hosts

step "The base image, built from Debian's packages (once; about a minute)"
playbook base_image -e base_image_name=debian:12

step "The VM, until cloud-init is done in it"
create | tee "$state/first.log"

step "The same again: nothing is to change"
create | tee "$state/second.log"
if ! grep -Eq '^local +: .* changed=0 .* failed=0 ' "$state/second.log"; then
    echo "kvmfleet: the second run changed something; see $state/second.log" >&2
    exit 1
fi

step "Done in $((SECONDS - began)) s; log in with"
grep -o 'ssh -i .*' "$state/second.log" | head -n 1
echo "Virtualisation type: $(cat /var/lib/kvmfleet/virt_type). Remove it all with: make demo-clean"
