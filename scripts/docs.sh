#!/usr/bin/env bash
# The reference of all plugins and roles as HTML in docs/_build/html, without a network. A warning is an error.
set -euo pipefail

cd "$(dirname "$0")/.."
out=$PWD/docs/_build
rm -rf "$out"
mkdir -p "$out/rst"
# antsibull-docs refuses a folder that others can write to
mkdir -p "$out/rst/collections/kvmfleet/core"
chmod 0700 "$out/rst/collections/kvmfleet/core"
cp docs/sphinx/conf.py docs/sphinx/index.rst "$out/rst/"
antsibull-docs collection --use-current --fail-on-error --squash-hierarchy --dest-dir "$out/rst/collections/kvmfleet/core" kvmfleet.core
sphinx-build -q -W --keep-going -b html "$out/rst" "$out/html"
missing=0
for page in plugins/modules/*.py plugins/inventory/*.py; do
    name=$(basename "$page" .py)
    [ -e "$page" ] || continue
    if ! compgen -G "$out/html/collections/kvmfleet/core/${name}_*.html" >/dev/null; then
        echo "docs: $page has no page" >&2
        missing=1
    fi
done
[ "$missing" -eq 0 ]
echo "docs/_build/html/index.html"
