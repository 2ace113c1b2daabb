#!/usr/bin/env bash
# Builds container images `FROM scratch` with buildah, without a network, as archives that
# `ctr images import`, `podman load` and `skopeo copy docker-archive:` take.
#   images.sh OUT quorate | quorate-operator   ours, from the programs in $QUORATE_BIN_DIR
#   images.sh OUT pause | coredns | s3 | load         what the tests' node needs besides
set -euo pipefail
cd "$(dirname "$0")/.."
out=$1
shift
mkdir -p "$out"
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { echo "images: $*" >&2; }

[ "$(id -u)" = 0 ] || {
  say "buildah is run as root here: use sudo -E make images"
  exit 1
}
command -v buildah >/dev/null || {
  say "buildah is missing: scripts/setup.sh node installs it"
  exit 1
}

# Storage of its own, so that nothing is left on the machine; copying is slower than overlays, but works anywhere.
storage=(--root "$work/storage" --runroot "$work/run" --storage-driver vfs)

# add PROGRAM NAME… : the program under its names, and the shared libraries that it asks for.
add() {
  local program=$1 first=$2 library alias
  shift
  [ -x "$program" ] || {
    say "$program is missing: run make build"
    exit 1
  }
  install -D -m 0755 "$program" "$root/usr/bin/$first"
  strip "$root/usr/bin/$first"
  shift
  for alias in "$@"; do ln -s "$first" "$root/usr/bin/$alias"; done
  # A static program names none, which ldd calls an error.
  for library in $(ldd "$program" 2>/dev/null | grep -o '/[^ ]*' || true); do
    [ -e "$root$library" ] || install -D -m 0755 "$(readlink -f "$library")" "$root$library"
  done
}

# What a program finds on any system: users, how to look names up, and whom to trust.
base() {
  mkdir -p "$root/etc/ssl/certs"
  install -d -m 1777 "$root/tmp"
  echo 'quorate:x:65532:65532::/:/nonexistent' >"$root/etc/passwd"
  echo 'quorate:x:65532:' >"$root/etc/group"
  echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  # glibc loads its resolvers by name, so ldd does not list them.
  local library
  for library in $(ldconfig -p | grep -oE '/[^ ]*/libnss_(files|dns)\.so\.2' | grep "$(uname -m)" | sort -u) \
    $(ldconfig -p | grep -oE '/[^ ]*/libresolv\.so\.2' | grep "$(uname -m)"); do
    [ -e "$root$library" ] || install -D -m 0755 "$(readlink -f "$library")" "$root$library"
  done
}

# The date of what is in the image decides, not the day on which it is built.
stamp() { git log -1 --format=%ct 2>/dev/null || echo 0; }

# image NAME CONTEXT TAG : builds what lies in $root, in a network namespace that leads nowhere.
image() {
  local name=$1 context=$2 tag=localhost/$1:$3
  say "$tag"
  cp "$context/Containerfile" "$work/$name/"
  mkdir -p "$root/etc"
  unshare --net -- buildah "${storage[@]}" bud --quiet --isolation chroot --pull-never --timestamp "$(stamp)" \
    --build-arg "VERSION=$version" --tag "$tag" "$work/$name" >/dev/null
  rm -f "$out/$name.tar.part"
  buildah "${storage[@]}" push --quiet "$tag" "docker-archive:$out/$name.tar.part:$tag"
  mv "$out/$name.tar.part" "$out/$name.tar"
}

cache=${CACHE:-$HOME/.cache/quorate}
bin=${QUORATE_BIN_DIR:-$cache/target/release}
for name in "$@"; do
  root=$work/$name/rootfs
  mkdir -p "$root"
  case $name in
    quorate)
      base
      add "$bin/quorate" quorate
      add "$bin/quoratectl" quoratectl etcdctl etcdutl
      add "$bin/quorate-sidecar" quorate-sidecar
      image "$name" "images/$name" "$version"
      ;;
    quorate-operator)
      base
      add "$bin/quorate-operator" quorate-operator
      image "$name" "images/$name" "$version"
      ;;
    pause)
      gcc -static -O2 -s -o "$root/pause" e2e/images/pause/pause.c
      image "$name" "e2e/images/$name" 1
      ;;
    coredns)
      install -m 0755 "${QUORATE_COREDNS_BIN_DIR:?}/coredns" "$root/coredns"
      image "$name" "e2e/images/$name" 1
      ;;
    load)
      base
      add "$bin/quorate-e2e-writer" quorate-e2e-writer
      image "$name" "e2e/images/$name" 1
      ;;
    s3)
      base
      install -d -m 1777 "$root/data"
      add "${QUORATE_S3_BIN_DIR:?}/versitygw" versitygw
      image "$name" "e2e/images/$name" 1
      ;;
    *)
      say "unknown image $name"
      exit 2
      ;;
  esac
done
