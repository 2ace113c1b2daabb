#!/usr/bin/env bash
# Writes manifests/install.yaml, which is the chart with its defaults, for `kubectl apply --server-side`.
#   manifests.sh [FILE]
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-manifests/install.yaml}
{
  echo "# The operator of Quorate and its CRDs: kubectl apply --server-side -f install.yaml"
  echo "# Made from charts/quorate by \`make manifests\`; do not edit."
  echo "apiVersion: v1"
  echo "kind: Namespace"
  echo "metadata:"
  echo "  name: quorate-system"
  "${HELM:-helm}" template quorate charts/quorate --namespace quorate-system --kube-version 1.34.0 --skip-tests
} >"$out"
