# holdfast: a containerd shim. `make` alone lists what there is to make.

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
VCS     := $(if $(filter unknown,$(VERSION)),false,$(shell git rev-parse HEAD >/dev/null 2>&1 && echo true || echo false))
BIN     := bin
# Boots a virtual machine for the tests that need cgroup v2 alone; without it they are skipped.
VMRUN   ?= ../shared/vm/vmrun
MINUTES ?= 2
OOMS    ?= 200
SYSTEMD_OOMS ?= 50
# A copy of the database of vulnerabilities, for machines without a network; empty: the public one.
VULNDB  ?=
# no: build with Go's runtime as it is.
TUNE    ?= yes
# What bench runs containers with.
RUNTIME ?= runc
PREFIX  ?= /usr/local
ROOT    := $(DESTDIR)$(PREFIX)
PROGRAMS := containerd-shim-holdfast-v2 holdfast
PAGES   := containerd-shim-holdfast-v2.8 holdfast.1
COMPLETIONS := bash-completion/completions/holdfast zsh/site-functions/_holdfast fish/vendor_completions.d/holdfast.fish
# Of what is packed: times are part of the bytes, so they are the commit's.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || date +%s)
# dpkg wants a version that begins with a digit.
DEBVERSION := $(if $(filter v%,$(VERSION)),$(patsubst v%,%,$(VERSION)),0~git$(SOURCE_DATE_EPOCH).$(VERSION))

# The same commit and the same Go give the same bytes, wherever and whenever they are built. The
# shim finds its version in what Go notes of the commit, if there is one.
# no_grpc leaves out the stubs that would link gRPC and net/http into every shim.
# Go's new collector marks in the second page of each span, which dirties it: 75 KiB in each shim
# (docs/decisions/0007).
# Functions begin at 16 bytes rather than 32, and those of protobuf, of which the shim runs next to
# nothing, are not copied into each other: 0.2 MB of the binary.
# A few lines of Go's runtime are others, for memory, start-up and wake-ups of each shim (docs/decisions/0009).
# TUNE=no leaves them as they are, for a Go that internal/tune does not know.
GOBUILD := CGO_ENABLED=0 GOEXPERIMENT=nogreenteagc go build -trimpath -buildvcs=$(VCS) $$overlay \
	-tags no_grpc -gcflags 'google.golang.org/protobuf/...=-l' \
	-ldflags '-s -w -buildid= -funcalign=16 -X main.version=$(VERSION)'

OVERLAY := $(if $(filter no,$(TUNE)),overlay=,overlay=$$(go run ./internal/tune "$$(go env GOROOT)" "$$(go env GOVERSION)" "$$(go env GOCACHE)") || exit 1; overlay="-overlay $$overlay")

# Kept out of go.mod: what checks the product is not part of it.
MD2MAN      := go run github.com/cpuguy83/go-md2man/v2@v2.0.7
STATICCHECK := go run honnef.co/go/tools/cmd/staticcheck@v0.8.2

export GORACE = atexit_sleep_ms=0

.DEFAULT_GOAL := help
.PHONY: help build pages install uninstall deb dist run test test-vm soak mutants lint check bench density clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the shim and the client into bin/
	@$(OVERLAY); for p in $(PROGRAMS); do $(GOBUILD) -o $(BIN)/$$p ./cmd/$$p || exit 1; done

pages: # the manual pages, into bin/man
	@mkdir -p $(BIN)/man
	@for p in $(PAGES); do $(MD2MAN) -in docs/man/$$p.md -out $(BIN)/man/$$p || exit 1; done

# A running containerd may start the shim at any moment: it finds the old program or the new one. Each
# version has a directory of its own, and what bin names is switched by one rename.
install: build pages ## install programs, manual pages and completions below $(DESTDIR)$(PREFIX)
	@install -d $(ROOT)/bin $(ROOT)/lib/holdfast/$(VERSION) $(ROOT)/share/man/man1 $(ROOT)/share/man/man8
	@for p in $(PROGRAMS); do \
		new=$(ROOT)/lib/holdfast/$(VERSION)/.$$p.new; \
		install -m 755 $(BIN)/$$p $$new && mv -f $$new $(ROOT)/lib/holdfast/$(VERSION)/$$p && \
		ln -sfn ../lib/holdfast/$(VERSION)/$$p $(ROOT)/bin/.$$p.new && mv -fT $(ROOT)/bin/.$$p.new $(ROOT)/bin/$$p || exit 1; \
		echo "installed $(ROOT)/bin/$$p"; \
	done
	@install -d $(dir $(addprefix $(ROOT)/share/,$(COMPLETIONS)))
	@for f in $(COMPLETIONS); do \
		case $$f in bash*) s=bash;; zsh*) s=zsh;; *) s=fish;; esac; \
		$(BIN)/holdfast completion $$s >$(ROOT)/share/$$f || exit 1; \
	done
	@for p in $(PAGES); do \
		gzip -9nc $(BIN)/man/$$p >$(ROOT)/share/man/man$${p##*.}/$$p.gz || exit 1; \
	done

uninstall: ## remove what install has installed, in every version
	rm -f $(addprefix $(ROOT)/bin/,$(PROGRAMS)) $(foreach p,$(PAGES),$(ROOT)/share/man/man$(subst .,,$(suffix $(p)))/$(p).gz)
	rm -f $(addprefix $(ROOT)/share/,$(COMPLETIONS))
	rm -rf $(ROOT)/lib/holdfast

deb: ## build a Debian package into bin/
	@tree=$$(mktemp -d) && trap 'rm -rf "$$tree"' EXIT && chmod 755 "$$tree" && \
	$(MAKE) -s install DESTDIR="$$tree" PREFIX=/usr >&2 && \
	internal/dist/deb "$$tree" $(DEBVERSION) $$(dpkg --print-architecture) $(BIN)/holdfast_$(DEBVERSION)_$$(dpkg --print-architecture).deb && \
	echo $(BIN)/holdfast_$(DEBVERSION)_$$(dpkg --print-architecture).deb

dist: pages ## build archives for amd64 and arm64 into bin/dist, with checksums and bills of materials
	@rm -rf $(BIN)/dist && mkdir -p $(BIN)/dist
	@$(OVERLAY); for a in amd64 arm64; do \
		tree=$(BIN)/dist/holdfast-$(VERSION)-linux-$$a && mkdir -p $$tree/bin $$tree/man && cp $(addprefix $(BIN)/man/,$(PAGES)) $$tree/man/ && \
		for p in $(PROGRAMS); do GOARCH=$$a $(GOBUILD) -o $$tree/bin/$$p ./cmd/$$p || exit 1; done && \
		go run ./internal/dist/sbom holdfast $(VERSION) $$tree/bin/* >$$tree/sbom.cdx.json && \
		tar -C $(BIN)/dist --sort=name --mtime=@$(SOURCE_DATE_EPOCH) --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
			-cf - holdfast-$(VERSION)-linux-$$a | gzip -9n >$$tree.tar.gz && cp $$tree/sbom.cdx.json $$tree.cdx.json && rm -rf $$tree || exit 1; \
	done
	@cd $(BIN)/dist && sha256sum * >SHA256SUMS && cat SHA256SUMS

run: ## run a container through the shim; ARGS="-t BUNDLE" for a shell, WITH=containerd for ctr
ifeq ($(WITH),containerd)
	@test/setup runc containerd ctr busybox pstree
	@$(MAKE) -s build
	@test/with-containerd
else
	@test/setup runc
	@$(MAKE) -s build
	@# The container that greets ends with 7, to show that its exit status is passed on.
	@$(BIN)/holdfast run $(ARGS) $(if $(ARGS),,|| [ $$? = 7 ])
endif

test: ## install what the tests need, and run them all
	@test/setup gcc runc crun containerd ctr busybox unshare mkfs.ext4
	@[ ! -x "$(VMRUN)" ] || test/setup qemu-system-x86_64 cpio kmod xz
	@test/run

# What runs there at length, and with systemd. The numbers of OOM kills are those of a release; each
# takes a few seconds there.
test-vm: ## tests in a virtual machine: cgroup v2 alone, then with systemd; OOMS=200 SYSTEMD_OOMS=50
	@[ -x "$(VMRUN)" ] || { echo "make test-vm: there is no $(VMRUN), the script that boots a virtual machine (QEMU without" \
		"a network card, two CPUs, 2 GiB) with cgroup v2 alone or with systemd and runs a command in it; test/vm/vm_test.go" \
		"tells how it is called. Set VMRUN to yours, or run the tests named there on such a machine, as root."; exit 1; } >&2
	@test/setup gcc qemu-system-x86_64 cpio kmod xz
	HOLDFAST_VM=all HOLDFAST_OOMS=$(OOMS) VMRUN="$(abspath $(VMRUN))" go test -count=1 -v -tags no_grpc -timeout 1h \
		-run 'TestInMachine$$' ./test/vm
	HOLDFAST_VM=all HOLDFAST_OOMS=$(SYSTEMD_OOMS) VMRUN="$(abspath $(VMRUN))" go test -count=1 -v -tags no_grpc -timeout 1h \
		-run 'TestInMachineWithSystemd$$' ./test/vm

soak: ## random operations while things fail, for MINUTES=2; SEED=n to repeat a run
	@test/setup gcc runc
	@HOLDFAST_SOAK=$(MINUTES)m HOLDFAST_SOAK_SEED=$(SEED) go test -v -count=1 -tags no_grpc -race \
		-timeout $$(($(MINUTES) + 10))m ./test/soak

mutants: ## break one rule of the code after the other: some test has to notice
	@test/setup gcc
	@HOLDFAST_MUTANTS=1 go test -count=1 -tags no_grpc -parallel 3 -timeout 20m -run TestEveryMutantIsCaught ./test/mutants

lint: ## gofmt, go vet and staticcheck
	@unformatted=$$(gofmt -l cmd internal oom process runc shim stdio test); \
	[ -z "$$unformatted" ] || { echo "not formatted: $$unformatted"; exit 1; }
	go vet -tags no_grpc ./...
	cd test/e2e && go vet ./...
	$(STATICCHECK) -tags no_grpc ./...
	cd test/e2e && $(STATICCHECK) ./...

check: lint ## lint, import order, budgets, what is linked, and known vulnerabilities
	go test -tags no_grpc ./test
	test/vulns $(if $(VULNDB),-db $(VULNDB))

# crun runs where it works on a hybrid host, and so does everything beside it.
bench: ## beside containerd's shim; QUICK=1, ONLY=idle, N=20, RUNTIME=crun, PEERS=name=path,..., OUT=file, PLOTS=dir
	@test/setup $(RUNTIME)
	@$(MAKE) -s build
	@CGO_ENABLED=0 go run -tags no_grpc $(if $(filter crun,$(RUNTIME)),-exec test/without-unified) ./test/bench \
		-only "$(ONLY)" -runtime "$(RUNTIME)" -peers "$(PEERS)" -out "$(OUT)" -plots "$(PLOTS)" $(if $(QUICK),-quick) $(if $(N),-n $(N)) \
		-ours $(BIN)/containerd-shim-holdfast-v2 -theirs "$$(test/build-containerd)/containerd-shim-runc-v2"

# N containers are a few minutes each hundred; whatever happens they are removed. N is bench's too, where
# it is empty by default.
density: ## many idle containers, each in a shim of its own, and a restart of containerd; N=500, PEER=theirs or both
	@test/setup runc
	@HOLDFAST_DENSITY=$(or $(N),500) HOLDFAST_DENSITY_PEER="$(PEER)" go -C test/e2e test -count=1 -v \
		-timeout $$(($(or $(N),500) / 10 + 15))m -run 'TestDensity$$' .

clean: ## remove what was built here
	rm -rf $(BIN)
