#!/bin/sh
# Tries the answers on this machine, without any host.
set -eu
mkdir -p build
.venv/bin/python -m ziglang cc -Wall -Wextra -o build/test_answer answer.c test_answer.c
build/test_answer
