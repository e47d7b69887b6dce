#!/bin/sh
# What deny.toml demands of every crate, and what is known against them, where the database can be had.
cd "$(dirname "$0")/.." || exit 1
cargo=${CARGO:-cargo}
$cargo deny --version >/dev/null 2>&1 || { echo "skipped: needs cargo-deny (cargo install cargo-deny --locked)"; exit 0; }
$cargo deny --workspace --locked check licenses bans sources || exit 1
if why=$($cargo deny --workspace --locked fetch db 2>&1); then
  $cargo deny --workspace --locked check --disable-fetch advisories
else
  echo "skipped: advisories: the database could not be fetched: $(printf '%s\n' "$why" | tail -n 1)"
fi
