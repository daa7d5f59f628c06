#!/usr/bin/env bash
# Remove what the demo made and nothing that was there before it: the VM and its key; then the image and the pool unless somebody else's things are in them; the daemons it started.
# Built images stay in /var/cache/kvmfleet.
set -euo pipefail

cd "$(dirname "$0")/.."
export PATH=$PWD/.venv/bin:/usr/sbin:/sbin:$PATH ANSIBLE_COLLECTIONS_PATH=$PWD/.ansible/collections
state=.ansible/demo

become=()
if [ "$(id -u)" -ne 0 ]; then
    become=(--become)
    sudo -n true 2>/dev/null || become+=(--ask-become-pass)
fi

if [ -s "$state/started" ]; then
    vm=$(cat "$state/started")
    scripts/libvirtd.sh start
    [ -e "$state/vm-was-there" ] || ansible-playbook -i inventories/local.yml playbooks/delete_vm.yml "${become[@]}" -e vm_name="$vm"
    # A VM that was there may have been given the key
    [ -e "$state/key-was-there" ] || [ -e "$state/vm-was-there" ] || rm -f ~/.ssh/kvmfleet/"$vm" ~/.ssh/kvmfleet/"$vm.pub"
    [ -e "$state/pool-was-there" ] || ansible-playbook -i inventories/local.yml scripts/demo-clean.yml "${become[@]}"
else
    echo "The demo has made nothing in this checkout that is still there"
fi
scripts/libvirtd.sh stop
rm -rf "$state"
