#!/bin/sh
# Makes {{NAME}}.wasm, a WebAssembly component, with whatever Rust here can do it.
set -eu
cd "$(dirname "$0")"
target=wasm32-wasip2
has_target() { [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ]; }
name=$(echo "{{NAME}}" | tr - _)

if ! has_target $target && command -v rustup >/dev/null; then
  rustup target add $target || echo "rustup has no $target here"
fi
if has_target $target; then
  cargo build --release --target $target
  cp "target/$target/release/$name.wasm" "{{NAME}}.wasm"
elif [ -x /usr/bin/rustc ] && [ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/std" ]; then
  # Debian's rustc-web and rust-web-src: the standard library is built, too.
  echo "using Debian's rustc-web"
  target=wasm32-unknown-unknown
  host=$(rustc -vV | sed -n 's/^host: //p')
  linker="$(rustc --print sysroot)/lib/rustlib/$host/bin/rust-lld"
  [ -x "$linker" ] || linker=$(command -v wasm-ld || ls /usr/bin/wasm-ld-* | tail -1)
  RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$linker" \
    cargo build --release --target $target -Zbuild-std=std,panic_abort
  hotswap module component "target/$target/release/$name.wasm" "{{NAME}}.wasm"
else
  echo "no Rust here compiles to WebAssembly: run 'rustup target add $target'," >&2
  echo "or install Debian's rustc-web and rust-web-src" >&2
  exit 1
fi
ls -l "{{NAME}}.wasm"
