module github.com/opencontainers/image-spec

go 1.26
