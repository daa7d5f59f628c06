#!/usr/bin/env bash
# Install the Debian or Ubuntu packages of the named sets, as far as they are missing.
# Usage: packages.sh [--list] SET...   with SET one of build, check, run, image, test, bench, lab, browser, events
set -euo pipefail

packages_of() {
    case $1 in
        # to make .venv: libvirt-python comes as source only
        build) echo git make gcc libc6-dev pkg-config libvirt-dev python3-dev python3-venv ;;
        # what linters and unit tests call
        check) packages_of build; echo shellcheck openssh-client genisoimage ;;
        # to be a KVM host and a control node
        run) echo qemu-system-x86 qemu-utils libvirt-daemon-system libvirt-clients python3-libvirt dnsmasq-base ovmf swtpm swtpm-tools \
                  openssh-client iproute2 ;;
        # to build a base image out of Debian's packages
        image) echo mmdebstrap debian-archive-keyring e2fsprogs fdisk grub-common grub-pc-bin grub-efi-amd64-bin dosfstools mtools qemu-utils ;;
        test) packages_of run; packages_of image; packages_of check ;;
        # ganeti-htools has the peers of the placement figures
        bench) packages_of run; echo ganeti-htools genisoimage ;;
        # hosts as containers; crun refuses the hybrid cgroups of some machines
        lab) echo podman runc netavark aardvark-dns mmdebstrap debian-archive-keyring openssh-client iproute2 nftables ;;
        browser) echo chromium chromium-driver ;;
        # ansible-rulebook's rules run in Java
        events) echo default-jre-headless ;;
        *) echo "packages.sh: there is no set '$1' (build, check, run, image, test, bench, lab, browser, events)" >&2; exit 2 ;;
    esac
}

list_only=false
if [ "${1:-}" = --list ]; then
    list_only=true
    shift
fi

wanted=()
for set in "$@"; do
    for package in $(packages_of "$set"); do
        wanted+=("$package")
    done
done
if $list_only; then
    printf '%s\n' "${wanted[@]}" | sort -u
    exit 0
fi

if ! command -v dpkg-query >/dev/null; then
    echo "kvmfleet: this is neither Debian nor Ubuntu; install what corresponds to: ${wanted[*]}" >&2
    exit 1
fi

missing=()
mapfile -t present < <(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "${wanted[@]}" 2>/dev/null | sed -n 's/^ii *//p')
for package in $(printf '%s\n' "${wanted[@]}" | sort -u); do
    if ! printf '%s\n' "${present[@]}" | grep -qxF "$package"; then
        missing+=("$package")
    fi
done
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi

command=(env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}")
if [ "$(id -u)" -eq 0 ]; then
    as_root=()
elif sudo -n true 2>/dev/null || { [ -t 0 ] && command -v sudo >/dev/null; }; then
    as_root=(sudo)
else
    echo "kvmfleet: packages are missing, and this user can neither be root nor sudo. Let someone run:" \
         "apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi

echo "Installing ${missing[*]}"
mkdir -p .ansible
log=.ansible/apt.log
# apt holds a lock of its own; two makes at once wait for each other
if ! { "${as_root[@]}" apt-get update -q && "${as_root[@]}" "${command[@]}" -q -o DPkg::Lock::Timeout=300; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    echo "kvmfleet: installing packages failed; all of it is in $log" >&2
    exit 1
fi
