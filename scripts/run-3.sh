#!/usr/bin/env bash
# Starts three members on loopback and stops them together. QUORATE is the binary, DATA the folder.
set -euo pipefail
cluster=m1=http://127.0.0.1:2380,m2=http://127.0.0.1:22380,m3=http://127.0.0.1:32380
members=()
stop() { kill "${members[@]}" 2>/dev/null || true; }
trap stop INT TERM EXIT
mkdir -p -m 0700 "$DATA"
for pair in m1=2379 m2=22379 m3=32379; do
  name=${pair%=*} port=${pair#*=}
  "$QUORATE" --name "$name" --data-dir "$DATA/$name" \
    --listen-client-urls "http://127.0.0.1:$port" --advertise-client-urls "http://127.0.0.1:$port" \
    --listen-peer-urls "http://127.0.0.1:$((port + 1))" --initial-advertise-peer-urls "http://127.0.0.1:$((port + 1))" \
    --initial-cluster "$cluster" --initial-cluster-state new &
  members+=($!)
done
wait -n
