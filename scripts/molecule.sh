#!/usr/bin/env bash
# The molecule scenarios of extensions/molecule, each in a lab of its own, one after the other: all of them, or those that are named.
# Usage: molecule.sh [SCENARIO...]
set -euo pipefail

cd "$(dirname "$0")/.."
export PATH=$PWD/.venv/bin:/usr/sbin:/sbin:$PATH ANSIBLE_COLLECTIONS_PATH=$PWD/.ansible/collections MOLECULE_PROJECT_DIRECTORY=$PWD
# The inventory of a lab is there after create and before destroy
export MOLECULE_ANSIBLE_ARGS_STRICT_MODE=1
if [ ! -t 1 ]; then
    export MOLECULE_COMMAND_BORDERS=false NO_COLOR=1 ANSIBLE_NOCOLOR=1
fi
scripts/link.sh

scenarios=("$@")
if [ ${#scenarios[@]} -eq 0 ]; then
    for file in extensions/molecule/*/molecule.yml; do
        scenarios+=("$(basename "$(dirname "$file")")")
    done
fi
scenario=
# shellcheck disable=SC2317  # called by the trap
finish() {
    # molecule takes down what fails, but not what is interrupted
    if [ -n "$scenario" ]; then
        molecule destroy --scenario-name "$scenario" || true
    fi
}
trap finish EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

for scenario in "${scenarios[@]}"; do
    began=$SECONDS
    export MOLECULE_EPHEMERAL_DIRECTORY=$PWD/.ansible/molecule/$scenario
    molecule test --scenario-name "$scenario"
    echo "Scenario $scenario: passed in $((SECONDS - began)) s"
done
scenario=
