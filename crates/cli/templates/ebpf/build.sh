#!/bin/sh
# Needs clang, llvm-strip and libbpf's headers: apt-get install clang llvm libbpf-dev
set -eu
cd "$(dirname "$0")"
tool() {
    for name in "$1" "$1-19" "$1-16" "$1-14"; do
        if command -v "$name" > /dev/null; then
            echo "$name"
            return
        fi
    done
    echo "there is no $1: apt-get install clang llvm libbpf-dev" >&2
    exit 1
}
"$(tool clang)" -O2 -g -Wall -target bpf "-I/usr/include/$(uname -m)-linux-gnu" -c module.bpf.c -o {{ENTRY}}
# Without debug information but with BTF, which the kernel wants.
"$(tool llvm-strip)" -g {{ENTRY}}
