#!/bin/sh
# Let the checkout be found as the collection kvmfleet.core: .ansible/collections/ansible_collections/kvmfleet/core.
set -eu

cd "$(dirname "$0")/.."
link=.ansible/collections/ansible_collections/kvmfleet/core
mkdir -p "$(dirname "$link")"
if [ "$(readlink -f "$link" || true)" != "$PWD" ]; then
    ln -sfn ../../../.. "$link"
fi
