#!/bin/sh
# A plan of seven tasks, run for real in a repository of its own, then read back from its log.
# Started by `make demo`, which puts the command and its Python on the PATH. Ends with the exit code of the run.
set -eu
cd "$(dirname "$0")/.."

number=1
mkdir -p demo-output
until mkdir "demo-output/$number" 2>/dev/null; do
  number=$((number + 1))
done
cp -R examples/full_stack/. "demo-output/$number"
cd "demo-output/$number"
find . -name __pycache__ -prune -exec rm -rf {} +

git init --quiet --template= .
git add .
git -c user.name=demo -c user.email=demo@localhost -c commit.gpgsign=false -c core.hooksPath=/dev/null commit --quiet --message "Seven tasks ahead"

# This demo's own store, even where the checkout around it has one.
PARALLEL_AGENTS_STORE="$PWD/.parallel-agents/events.db"
export PARALLEL_AGENTS_STORE

show() {
  printf '\n$ %s\n' "$*"
  "$@"
}

code=0
show parallel-agents run plan.yaml || code=$?
show parallel-agents timeline || true
show parallel-agents history || true

cat <<END

All of it lies in  $PWD
  the page         cd there, python3 -m service --port 8080, open http://127.0.0.1:8080
  the reports      reports/qa.json (page and service checked together), reports/security.json
  the archive      dist/checkout.tar.gz
  what was made    git status
  more to ask      parallel-agents status, parallel-agents logs latest qa, parallel-agents why latest deploy
                   (the command is $(command -v parallel-agents))
END
exit "$code"
