# Everything a person or CI does with the project. `make` alone lists it.
export CGO_ENABLED = 0

# Set with := so that variables of the same name in the environment change nothing;
# `make BIN=...` still does.
GO            := go
BIN           := bin/advseg
GOFUMPT       := mvdan.cc/gofumpt@v0.12.0
GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
VERSION       := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
FUZZTIME      := 30s
CYCLONEDX     := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
PLATFORMS     := linux/arm64 darwin/arm64 windows/amd64
PEERS         :=
KILLS         := 2
SIMULATED     :=
QEMU          := $(shell command -v qemu-aarch64-static || command -v qemu-aarch64)

.DEFAULT_GOAL := help
.PHONY: help demo test test-integration test-flink test-race test-arm64 fuzz build cross lint lint-deploy sbom image fmt generate bench bench-peers clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## Run the whole loop on made-up images: train, label, retrain, gate, evaluate
	$(BIN) demo --out build/demo

test: ## Run all tests
	$(GO) vet ./...
	$(GO) test -timeout 10m ./...

test-integration: ## Run the loop in buckets: storage as processes of their own, faults between, random kills (Linux)
	$(GO) test -tags integration -timeout 10m -run '^TestBucket' ./pipelines/advseg

test-flink: ## Run jobs on a real Flink, embedded and as a cluster, with workers and TaskManagers killed (Linux, Java 17, Maven; KILLS=20 for more; SIMULATED=100000 for a large job with a network that only waits)
	scripts/flink/flink.sh prepare
	KILLS=$(KILLS) SIMULATED=$(SIMULATED) $(GO) test -tags flink -count 1 -timeout 60m -run '$(if $(SIMULATED),^TestSimulated,^TestFlink)' -v ./pipelines/advseg

test-race: ## Run the tests of the packages with goroutines of their own under the race detector (needs cgo)
	CGO_ENABLED=1 $(GO) test -race -short -timeout 30m ./io/... ./model/... ./transforms/...

# TestForcedLevel starts itself anew, which the emulator does not follow.
test-arm64: ## Run the tests of arm64's kernels, emulated by qemu-aarch64
	@test -n "$(QEMU)" || { echo "test-arm64: nothing was tested: qemu-aarch64 is not installed (apt-get install qemu-user-static)" >&2; exit 1; }
	GOOS=linux GOARCH=arm64 $(GO) vet ./model/kernel/...
	GOOS=linux GOARCH=arm64 $(GO) test -exec $(QEMU) -short -skip '^TestForcedLevel$$' ./model/kernel ./model/kernel/internal/simd

fuzz: ## Fuzz every target for FUZZTIME each (default 30s)
	scripts/fuzz.sh $(FUZZTIME)

build: ## Build the static binary into bin/
	$(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BIN) ./pipelines/advseg

cross: ## Compile for the other platforms
	@for p in $(PLATFORMS); do echo "build $$p"; \
	  GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -o /dev/null ./pipelines/advseg && \
	  GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) vet ./model/kernel/... || exit 1; done

lint: ## Check formatting and run golangci-lint (with the import direction)
	@out=$$($(GO) run $(GOFUMPT) -l .); if [ -n "$$out" ]; then echo "not gofumpt-ed:"; echo "$$out"; exit 1; fi
	$(GO) run $(GOLANGCI_LINT) run ./...

lint-deploy: ## Check Dockerfiles, schedules and scripts; skips what it has no tool for
	scripts/lint-deploy.sh build/lint-deploy

sbom: build ## Write build/sbom.cdx.json: what the binary is made of, in CycloneDX
	@mkdir -p build
	$(GO) run $(CYCLONEDX) bin -json -noserial -notimestamp -version $(VERSION) -output build/sbom.cdx.json $(BIN)

image: ## Build the images advseg and advseg-worker (needs a container engine)
	docker build -f scripts/container/Dockerfile --target advseg --build-arg VERSION=$(VERSION) -t advseg .
	docker build -f scripts/container/Dockerfile --target worker --build-arg VERSION=$(VERSION) -t advseg-worker .

fmt: ## Format the code
	$(GO) run $(GOFUMPT) -w .

generate: ## Regenerate the generated files
	$(GO) generate ./...

bench: ## Run the Go benchmarks (kernels and whole networks)
	$(GO) test -run '^$$' -bench . -benchmem ./model/kernel ./model/infer ./model/train

bench-peers: build .venv/bench ## Time advseg against PyTorch, ONNX Runtime and OpenVINO (PEERS='--row resnet18' for one row; --help for more)
	.venv/bin/python scripts/bench/peers.py --advseg $(BIN) $(PEERS)

# Python is for the peers only.
.venv/bench: scripts/bench/requirements.txt
	python3 -m venv .venv
	.venv/bin/pip install --quiet -r $<
	@touch $@

clean: ## Remove what was built
	rm -rf bin build
