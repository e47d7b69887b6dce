#!/bin/sh
# Every test: Rust and C. Says what was skipped and why, and ends with a line "N passed, N failed".
cd "$(dirname "$0")/.." || exit 1
cargo=${CARGO:-cargo}
for tool in cc nm readelf; do
  command -v $tool >/dev/null || { echo "make check: needs $tool (Debian: gcc, binutils)" >&2; exit 1; }
done
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
{ $cargo test --locked --no-fail-fast -- --nocapture; echo "status $?"; } >"$log" 2>&1
sed -n '/^running\|^test \|panicked\|^error\|^warning: unused/p' "$log"
grep -E '^status [1-9]' "$log" >/dev/null && sed -n '/panicked at/,/^test /p; /^error/,/^$/p' "$log"
echo
echo "skipped:"
grep -o 'skipped.*' "$log" | sort | uniq -c | sed 's/^ *//' || true
passed=$(sed -n 's/^test result: .* \([0-9]*\) passed; .*/\1/p' "$log" | awk '{n += $1} END {print n + 0}')
failed=$(sed -n 's/^test result: .* \([0-9]*\) failed; .*/\1/p' "$log" | awk '{n += $1} END {print n + 0}')
# The oracle: a real kernel, where one can be had.
if [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ] && [ -z "${PFKEY_NO_KERNEL:-}" ]; then
  if kernel=$(CARGO=$cargo tests/kernel/check 6.1 2>&1); then
    case $kernel in *skipped*) ;; *) passed=$((passed + 1)) ;; esac
  else
    failed=$((failed + 1))
  fi
  printf '%s\n' "$kernel"
else
  echo "not run: scenarios on a real kernel (tests/kernel/check 6.1) need root on Debian"
fi
status=$(sed -n 's/^status //p' "$log")
[ "$status" = 0 ] || [ "$failed" != 0 ] || failed=1
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
