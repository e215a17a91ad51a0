#!/bin/sh
# A plan of seven tasks, run for real in a repository of its own, then read back from its log.
# Started by `make demo`, which puts the command and its Python on the PATH. Ends with the exit code of the run.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
unset $(git rev-parse --local-env-vars) # Those of a hook would lead every command to the repository around this one.

number=1
mkdir -p demo-output
until mkdir "demo-output/$number" 2>/dev/null; do
  number=$((number + 1))
done
cp -R examples/full_stack/. "demo-output/$number"
cd "demo-output/$number"
find . -name __pycache__ -prune -exec rm -rf {} +

git -c init.defaultBranch=main init --quiet --template= .
git add .
git -c user.name=demo -c user.email=demo@localhost -c commit.gpgsign=false -c core.hooksPath=/dev/null commit --quiet --message "Seven tasks ahead"

# This demo's own store, even where the checkout around it has one.
PARALLEL_AGENTS_STORE="$PWD/.parallel-agents/events.db"
export PARALLEL_AGENTS_STORE

show() {
  printf '\n$ %s\n' "$*"
  "$@"
}

trap : INT # Ctrl-C is for the run, which then starts nothing more; what follows says how it stands.
code=0
show parallel-agents run plan.yaml || code=$?
show parallel-agents timeline || true
show parallel-agents history || true
if [ "$code" = 0 ]; then
  show parallel-agents merge || code=$?
  show git log --oneline --graph --max-count 12 || true
fi

here=../../.venv/bin/
[ "$(command -v parallel-agents)" = "$root/.venv/bin/parallel-agents" ] || here=
cat <<END

Every task worked in a checkout of its own; the result was merged into main of a repository of its own:
                cd demo-output/$number
  the page      ${here}python3 -m service --port 8080    then open http://127.0.0.1:8080
  the reports   cat reports/qa.json reports/security.json
  the archive   tar tzf dist/checkout.tar.gz
  one task      ${here}parallel-agents logs latest qa    or show, why: latest qa
  the log       ${here}parallel-agents verify            or status, checkpoints, history --task qa
  go back       ${here}parallel-agents rollback latest --to "before qa" --dry-run
END
exit "$code"
