#!/bin/sh
# Makes quotes, an executable for this machine's processor: the standard library alone, so rustc is all that it takes.
set -eu
cd "$(dirname "$0")"
"${RUSTC:-rustc}" --edition=2024 -Copt-level=2 -Cstrip=symbols -o quotes src/main.rs
