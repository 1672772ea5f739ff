#!/bin/sh
# Builds {{NAME}}.wasm: a core module by zig's C compiler, and a component of it. The stack counts as memory from the
# beginning; 16 MiB would be taken unless told otherwise.
set -eu
mkdir -p build
.venv/bin/python -m ziglang cc -target wasm32-wasi -mexec-model=reactor -O2 -s \
  -Wl,-z,stack-size=262144 -o build/core.wasm \
  handler.c answer.c bindings/module.c bindings/module_component_type.o
hotswap module component build/core.wasm {{NAME}}.wasm
