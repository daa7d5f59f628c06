#!/usr/bin/env bash
# Have the image that the tests boot in the cache of built images, by way of a storage pool that exists for a moment.
# The gates run it on the small environment of core 2.18, while pip still works on the large one.
set -euo pipefail

pool=kvmfleet-test-image-$$
folder=$(mktemp -d)
clean() {
    virsh -q -c qemu:///system pool-destroy "$pool" || true
    rm -rf "$folder"
}
trap clean EXIT
virsh -q -c qemu:///system pool-create-as "$pool" dir --target "$folder"
ansible localhost -i localhost, -c local -e ansible_python_interpreter='{{ ansible_playbook_python }}' -m kvmfleet.core.base_image_file \
    -a "{\"name\": \"debian:12\", \"source\": \"build\", \"suite\": \"bookworm\", \"pool\": \"$pool\"}"
