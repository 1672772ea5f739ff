#!/bin/sh
# Makes {{NAME}}.bin, an executable for this machine's processor.
set -eu
cd "$(dirname "$0")"
cargo build --release
cp "target/release/{{NAME}}" "{{NAME}}.bin"
ls -l "{{NAME}}.bin"
