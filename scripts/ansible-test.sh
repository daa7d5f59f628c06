#!/usr/bin/env bash
# Run ansible-test on a copy of the checkout, uncommitted files included: it wants a real folder .../ansible_collections/kvmfleet/core.
# Usage: ansible-test.sh COMMAND [OPTION...]
set -euo pipefail

cd "$(dirname "$0")/.."
checkout=$PWD
users_home=$HOME
export HOME=$checkout/.ansible/home
tree=$checkout/.ansible/test-root/$1/ansible_collections/kvmfleet/core

# ansible-test looks here before it downloads get-pip: core 2.18 and 2.19, core 2.17
mkdir -p "$HOME/.ansible/test/cache"
for name in get_pip_24_2.py get_pip_23_1_2.py; do
    install -m 0644 scripts/get_pip.py "$HOME/.ansible/test/cache/$name"
done

# pip's settings and cache stay the user's
for folder in .cache/pip .config/pip; do
    if [ -d "$users_home/$folder" ]; then
        mkdir -p "$HOME/${folder%/*}"
        ln -sfn "$users_home/$folder" "$HOME/$folder"
    fi
done

# Two runs of one command in one checkout would take the copy away from under each other
exec 9>"$checkout/.ansible/ansible-test-$1.lock"
flock 9
rm -rf "$tree"
mkdir -p "$tree"
git ls-files -z --cached --others --exclude-standard --deduplicate |
    while IFS= read -r -d '' file; do [ -e "$file" ] && printf '%s\0' "$file"; done |
    tar --create --null --files-from=- | tar --extract --directory="$tree"
# Or else ansible-test asks the checkout's own git, which ignores this folder
git -C "$tree" init --quiet
git -C "$tree" add --all

cd "$tree"
python=$(python3 -c 'import sys; print("{0}.{1}".format(*sys.version_info))')
command=$1
shift
exec ansible-test "$command" --local --python "$python" --color no "$@"
