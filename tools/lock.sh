#!/usr/bin/env bash
# Pin every dependency with hashes and without naming where it was downloaded.
set -eu
cd "$(dirname "$0")/.."
pin() {
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
    --no-emit-index-url --no-emit-find-links --no-annotate "${@:2}" -o "requirements/$1.txt"
}
pin client pyproject.toml
pin ops pyproject.toml --extra ops
pin image pyproject.toml --extra ops --extra builtin
pin embedded pyproject.toml --extra embedded
pin flower pyproject.toml --extra flower
pin dev pyproject.toml --extra builtin --extra embedded --extra flower --extra testing --group dev requirements/build.in
