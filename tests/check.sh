#!/bin/sh
# Every test: Rust and C. Says first what is missing; shows each test as it ends, and every half minute that it is alive;
# names what was skipped and why; ends with a line "N passed, N failed". Everything that the tests said: target/check.log.
#   KERNEL=yes   real kernels too (root on Debian: installs packages, fetches a kernel)
cd "$(dirname "$0")/.." || exit 1
cargo=${CARGO:-cargo}
export CARGO_TERM_COLOR=never

missing='' packages='' note=''
lacks() {
  missing="$missing${missing:+, }$1"
  case " $packages " in *" $2 "*) ;; *) packages="$packages $2" ;; esac
}
need() { [ -n "$(command -v "$1")" ] || lacks "$1" "$2"; }
rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
have=$($cargo --version 2>&1 | sed -n 's/^cargo \([0-9.]*\).*/\1/p')
[ "$(printf '%s\n' "$rust" "${have:-0}" | sort -V | head -n 1)" = "$rust" ] || {
  lacks "Rust $rust (cargo is ${have:-not there})" cargo
  note=' (before Debian 13: Rust from https://rustup.rs)'
}
need cc gcc
need c++ g++
need nm binutils
need readelf binutils
[ -e /etc/protocols ] || lacks /etc/protocols netbase
[ -e /etc/services ] || lacks /etc/services netbase
[ -z "$missing" ] || {
  echo "make check: missing: $missing. On Debian: apt install -y$packages$note" >&2
  exit 1
}

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target" || exit 1
log=$target/check.log
: >"$log" || exit 1
began=$(date +%s)
ticker() {
  trap 'kill $! 2>&-; exit' TERM
  while :; do
    sleep 30 &
    wait $!
    now=$(($(date +%s) - began))
    printf -- '-- %d:%02d, %d tests done; last: %s\n' $((now / 60)) $((now % 60)) \
      "$(grep -c '^test .* \.\.\. ' "$log")" "$(sed -n '$s/^ *//p' "$log")"
  done
}
ticker &
ticker=$!
trap 'kill $ticker 2>&-; wait $ticker' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
$cargo build --locked || exit 1
{ $cargo test --locked --no-fail-fast -- --show-output 2>&1; echo "status $?"; } | while IFS= read -r line; do
  printf '%s\n' "$line" >&3
  case $line in
    successes:) hidden=yes ;;
    failures: | 'test result: '*) hidden='' ;;
  esac
  case $hidden$line in
    yes* | '' | running\ * | 'test result: '* | 'status '*) ;;
    *) printf '%s\n' "$line" ;;
  esac
done 3>"$log"

echo
echo "skipped:"
awk '/^successes:$/ { on = 1 } /^failures:$|^test result: / { on = 0 }
  on && /^---- .* stdout ----$/ { name = substr($0, 6, length($0) - 17) }
  on && /skipped/ { sub(/.*skipped:? */, ""); print "  " name ": " $0 }
  /^test .* \.\.\. ignored/ { sub(/^test /, ""); print "  " $0 }' "$log"
count() { awk -v what="$1;" '/^test result: / { for (i = 2; i <= NF; i++) if ($i == what) n += $(i - 1) } END { print n + 0 }' "$log"; }
passed=$(count passed)
failed=$(count failed)
# A program that died says no result.
dead=$(awk '/^ +(Running|Doc-tests) / { if (name) print name; name = $2 } /^test result: / { name = "" } END { if (name) print name }' "$log")
for name in $dead; do failed=$((failed + 1)); done
status=$(sed -n 's/^status //p' "$log")
[ "$status" = 0 ] || [ "$failed" != 0 ] || failed=1
# The oracle: a real kernel.
if [ "${KERNEL:-}" = yes ]; then
  if kernel=$(CARGO=$cargo tests/kernel/check 6.1 2>&1); then
    case $kernel in *skipped*) ;; *) passed=$((passed + 1)) ;; esac
  else
    failed=$((failed + 1))
  fi
  printf '%s\n' "$kernel"
else
  echo "  scenarios on a real kernel: make check KERNEL=yes, as root on Debian (installs packages, fetches a kernel)"
fi
[ "$failed" = 0 ] || {
  echo "failed (all of it: $log):"
  sed -n 's/^test \(.*\) \.\.\. FAILED$/  \1/p' "$log"
  for name in $dead; do echo "  $name: ended without a result"; done
}
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
