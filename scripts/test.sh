#!/usr/bin/env bash
# Runs every test and ends with the sum of the runners' counts.
set -uo pipefail
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Tests interrupt programs, which a caller that ignores interrupts would have them ignore too.
env --default-signal=INT,QUIT cargo test --release --locked --workspace --no-fail-fast 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
awk '/^test result:/ { for (i = 1; i < NF; i++) { if ($(i+1) ~ /^passed/) passed += $i; if ($(i+1) ~ /^failed/) failed += $i; if ($(i+1) ~ /^ignored/) ignored += $i } }
  END { printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored }' "$log"
exit "$status"
