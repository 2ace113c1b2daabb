# Everything a reader needs: `make run` starts one node, `make test` passes the tests.
# What is built stays outside the checkout, so that checkouts share it: RocksDB alone takes ten minutes.
CACHE ?= $(HOME)/.cache/quorate
export CARGO_TARGET_DIR ?= $(CACHE)/target
export QUORATE_BIN_DIR ?= $(CARGO_TARGET_DIR)/release
# RocksDB is compiled once into an archive that every later build links, whatever else changes.
ROCKSDB_VERSION := $(shell sed -n '/^name = "librocksdb-sys"/{n;s/^version = "\(.*\)"/\1/p}' Cargo.lock)
export ROCKSDB_LIB_DIR ?= $(CACHE)/rocksdb-$(ROCKSDB_VERSION)
export ROCKSDB_STATIC := 1
ETCD_VERSION := 3.7.3
export QUORATE_ETCD_BIN_DIR ?= $(CACHE)/etcd-$(ETCD_VERSION)
VERSITYGW_VERSION := 1.8.0
export QUORATE_S3_BIN_DIR ?= $(CACHE)/versitygw-$(VERSITYGW_VERSION)
KUBERNETES_VERSION := 1.34.1
export QUORATE_KUBERNETES_BIN_DIR ?= $(CACHE)/kubernetes-$(KUBERNETES_VERSION)
HELM_VERSION := 3.22.0
export QUORATE_HELM_BIN_DIR ?= $(CACHE)/helm-$(HELM_VERSION)
COREDNS_VERSION := 1.15.0
export QUORATE_COREDNS_BIN_DIR ?= $(CACHE)/coredns-$(COREDNS_VERSION)
PROMETHEUS_OPERATOR_VERSION := 0.85.0
export QUORATE_PROMETHEUS_OPERATOR_BIN_DIR ?= $(CACHE)/prometheus-operator-$(PROMETHEUS_OPERATOR_VERSION)
export QUORATE_IMAGES_DIR ?= $(CACHE)/images
CARGO_DENY := $(CACHE)/cargo-deny/bin/cargo-deny
DATA ?= quorate-data

.DEFAULT_GOAL := help
.PHONY: help run run-3 run-kubernetes build images e2e-images manifests test e2e verify fix bench setup

help: ## what can be made
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(ROCKSDB_LIB_DIR)/librocksdb.a:
	@scripts/setup.sh build
	@scripts/setup.sh rocksdb $(ROCKSDB_LIB_DIR)

setup: $(ROCKSDB_LIB_DIR)/librocksdb.a
	@scripts/setup.sh build

build: setup ## build every binary
	cargo build --release --locked --workspace

run: build ## one node on 127.0.0.1:2379, data in ./quorate-data
	@mkdir -p -m 0700 $(DATA)
	exec $(QUORATE_BIN_DIR)/quorate --name default --data-dir $(DATA)/default

run-3: build ## three members on 127.0.0.1:2379, :22379 and :32379
	@QUORATE=$(QUORATE_BIN_DIR)/quorate DATA=$(DATA) scripts/run-3.sh

# The real etcd, which tests and benchmarks compare with, from the Go module proxy.
$(QUORATE_ETCD_BIN_DIR)/.done: e2e/etcd/go.mod e2e/etcd/go.sum e2e/etcd/pages/main.go
	@scripts/setup.sh etcd $(QUORATE_ETCD_BIN_DIR)
	@touch $@

# A real Kubernetes, which tests run on Quorate and Quorate on it, from the Go module proxy.
$(QUORATE_KUBERNETES_BIN_DIR)/.done: e2e/kubernetes/go.mod e2e/kubernetes/go.sum
	@scripts/setup.sh kubernetes $(QUORATE_KUBERNETES_BIN_DIR)
	@touch $@

# What goes with it: helm, the name server, an S3 server, the operator of Prometheus.
define go_tool
$(1)/.done: e2e/$(2)/go.mod e2e/$(2)/go.sum
	@scripts/setup.sh $(2) $(1)
	@touch $$@
endef
$(eval $(call go_tool,$(QUORATE_HELM_BIN_DIR),helm))
$(eval $(call go_tool,$(QUORATE_COREDNS_BIN_DIR),coredns))
$(eval $(call go_tool,$(QUORATE_S3_BIN_DIR),s3))
$(eval $(call go_tool,$(QUORATE_PROMETHEUS_OPERATOR_BIN_DIR),prometheus-operator))
HELM := $(QUORATE_HELM_BIN_DIR)/helm
REAL_KUBERNETES := $(addsuffix /.done,$(QUORATE_KUBERNETES_BIN_DIR) $(QUORATE_HELM_BIN_DIR) \
  $(QUORATE_COREDNS_BIN_DIR) $(QUORATE_S3_BIN_DIR) $(QUORATE_PROMETHEUS_OPERATOR_BIN_DIR))

images: build ## container images as archives in QUORATE_IMAGES_DIR; by buildah, as root, with no network
	@scripts/setup.sh node
	scripts/images.sh $(QUORATE_IMAGES_DIR) quorate quorate-operator

e2e-images: build $(QUORATE_COREDNS_BIN_DIR)/.done $(QUORATE_S3_BIN_DIR)/.done
	@scripts/setup.sh node
	scripts/images.sh $(QUORATE_IMAGES_DIR) pause coredns s3 load

run-kubernetes: $(QUORATE_ETCD_BIN_DIR)/.done $(REAL_KUBERNETES) images e2e-images ## a real Kubernetes on Quorate to play with, until Ctrl-D; as root
	$(QUORATE_BIN_DIR)/quorate-e2e-kubernetes

manifests: setup $(QUORATE_HELM_BIN_DIR)/.done ## write CRDs, dashboards and manifests/install.yaml
	cargo run --release --locked -p quorate-operator --bin quorate-manifests
	HELM=$(HELM) scripts/manifests.sh

test: build $(QUORATE_ETCD_BIN_DIR)/.done $(QUORATE_S3_BIN_DIR)/.done $(QUORATE_KUBERNETES_BIN_DIR)/.done ## all tests but the long ones
	@scripts/setup.sh tests
	scripts/test.sh

e2e: build $(QUORATE_ETCD_BIN_DIR)/.done $(REAL_KUBERNETES) images e2e-images ## the long tests, as root: QUORATE_FAULT_ROUNDS kill rounds (300), a real Kubernetes, 5M keys
	@scripts/setup.sh tests
	QUORATE_FAULT_ROUNDS=$${QUORATE_FAULT_ROUNDS:-300} QUORATE_ROUND_TRIP_KEYS=$${QUORATE_ROUND_TRIP_KEYS:-5000000} env --default-signal=INT,QUIT cargo test --release --locked -p quorate-e2e --features kubernetes

$(CARGO_DENY):
	@scripts/setup.sh deny $(CACHE)/cargo-deny

verify: setup $(CARGO_DENY) ## read only: format, lints, licences and bans, stale manifests, the tidy test
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets --features quorate-e2e/kubernetes -- -D warnings
	$(CARGO_DENY) --locked check bans licenses sources
	cargo run --release --locked -p quorate-operator --bin quorate-manifests -- --check
	cargo test --release --locked -p quorate-e2e --test tidy

fix: setup ## write what verify would complain about
	cargo fmt --all
	cargo clippy --release --workspace --all-targets --fix --allow-dirty

bench: build $(QUORATE_ETCD_BIN_DIR)/.done ## beside the real etcd; writes docs/benchmarks.md
	$(QUORATE_BIN_DIR)/quorate-bench
