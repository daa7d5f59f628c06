#!/usr/bin/env bash
# Remove what the demo made: the VM and its key; then the image and the pool unless somebody else's things are in them; the daemons it started.
# Built images stay in /var/cache/kvmfleet.
set -euo pipefail

cd "$(dirname "$0")/.."
vm=${KVMFLEET_DEMO_VM:-demo}
export PATH=$PWD/.venv/bin:/usr/sbin:/sbin:$PATH ANSIBLE_COLLECTIONS_PATH=$PWD/.ansible/collections
state=.ansible/demo

become=()
if [ "$(id -u)" -ne 0 ]; then
    become=(--become)
    sudo -n true 2>/dev/null || become+=(--ask-become-pass)
fi

if ! scripts/libvirtd.sh status >/dev/null; then
    scripts/libvirtd.sh start
fi
ansible-playbook -i inventories/local.yml playbooks/delete_vm.yml "${become[@]}" -e vm_name="$vm"
if [ -e "$state/started" ]; then
    [ -e "$state/key-was-there" ] || rm -f ~/.ssh/kvmfleet/"$vm" ~/.ssh/kvmfleet/"$vm.pub"
    [ -e "$state/pool-was-there" ] || ansible-playbook -i inventories/local.yml scripts/demo-clean.yml "${become[@]}"
fi
scripts/libvirtd.sh stop
rm -rf "$state"
