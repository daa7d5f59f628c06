#!/usr/bin/env bash
# The site in docs/_build/html: the pages of docs/ and the reference of all plugins and roles. No network. A warning is an error, and so is a link that
# leads nowhere. Pages stay where they are in the checkout, so that their links to each other are the same here and on a forge.
set -euo pipefail

cd "$(dirname "$0")/.."
out=$PWD/docs/_build
rm -rf "$out"
mkdir -p "$out/src"
git ls-files -co --exclude-standard -z -- docs CONTRIBUTING.md README.md LICENSE roles extensions playbooks inventories execution-environment.yml |
    while IFS= read -r -d '' file; do
        # one that is deleted and not committed yet is listed still
        [ ! -e "$file" ] || cp --parents "$file" "$out/src/"
    done
# The front page is docs/README.md, one folder up
sed -E 's#\]\(([a-z])#](docs/\1#g; s#\]\(\.\./#](#g' docs/README.md >"$out/src/index.md"
cat docs/sphinx/toctree.md >>"$out/src/index.md"
# Pages that have no place there yet come last, so that none is lost
{
    printf '\n```{toctree}\n:hidden:\n:caption: More\n\n'
    for page in docs/*.md roles/*/README.md extensions/*/README.md CONTRIBUTING.md; do
        [ "$page" = docs/README.md ] || [ ! -e "$page" ] || grep -qxF "${page%.md}" docs/sphinx/toctree.md || echo "${page%.md}"
    done
    printf '```\n'
} >>"$out/src/index.md"
rm "$out/src/docs/README.md"
# antsibull-docs refuses a folder that others can write to
mkdir -p "$out/src/collections/kvmfleet/core"
chmod 0700 "$out/src/collections/kvmfleet/core"
antsibull-docs collection --use-current --fail-on-error --squash-hierarchy --dest-dir "$out/src/collections/kvmfleet/core" kvmfleet.core
sphinx-build -q -W --keep-going -c docs/sphinx -b html "$out/src" "$out/html"
missing=0
page_of() {  # page_of WHAT PATTERN
    if ! compgen -G "$out/html/$2" >/dev/null; then
        echo "docs: $1 has no page" >&2
        missing=1
    fi
}
for file in plugins/modules/*.py; do
    page_of "$file" "collections/kvmfleet/core/$(basename "$file" .py)_module.html"
done
for kind in inventory callback filter lookup connection; do
    for file in plugins/"$kind"/*.py; do
        [ ! -e "$file" ] || page_of "$file" "collections/kvmfleet/core/$(basename "$file" .py)_$kind.html"
    done
done
for folder in roles/*/; do
    page_of "$folder" "collections/kvmfleet/core/$(basename "$folder")_role.html"
done
for file in docs/*.md; do
    [ "$file" = docs/README.md ] || page_of "$file" "${file%.md}.html"
done
[ "$missing" -eq 0 ]
echo "docs/_build/html/index.html"
