#!/bin/sh
# make check-sanitize [PARTS="asan valgrind tsan miri"]: tests under sanitizers, valgrind and Miri. Each part says what it
# ran, or why it was skipped; the exit status is 1 if one found something. Slow: not part of make check.
#   asan      Rust tests, and the C programs that they compile, under AddressSanitizer; C also under UndefinedBehaviorSanitizer
#   valgrind  the C programs of c-tests under memcheck
#   tsan      tests with threads under ThreadSanitizer, with a standard library that is instrumented, too
#   miri      what needs no foreign functions: messages, policies, printing, and capi's way with pointers
cd "$(dirname "$0")/.." || exit 1
cargo=${CARGO:-cargo}
failed=0
host=$(rustc -vV | sed -n 's/^host: //p')
say() { echo "sanitize: $*"; }
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT

# Runs one part and says how it went.
run() {
  name=$1
  shift
  if "$@" >"$log" 2>&1; then
    passed=$(sed -n 's/^test result: .* \([0-9]*\) passed; .*/\1/p' "$log" | awk '{n += $1} END {print n + 0}')
    say "$name: $passed tests passed"
  else
    failed=1
    say "$name: FAILED"
    grep -E 'panicked at|^error|ERROR: |WARNING: Thread|runtime error|unsupported operation|SUMMARY|Undefined Behavior|^test .* FAILED|: (exit status|signal): ' "$log" |
      head -n 60
  fi
}

# Tests without a counting allocator of their own and without programs that are not instrumented, which the preload
# object would bring the runtime into. A million SAs take too long; what `never_panics` does, the fuzzers do.
integration() {
  for file in tests/*.rs; do
    name=$(basename "$file" .rs)
    case $name in
      abi | any | coverage | headers | linking | man_pages | million | no_allocation | preload | state_alloc | keys_are_wiped | keys_stay_private | never_panics | faults | deny | supply_chain) ;;
      *) printf ' --test %s' "$name" ;;
    esac
  done
  for directory in scenarios rfc2367 klips; do printf ' --test %s' "$directory"; done
}

asan() {
  [ -e "$(rustc --print sysroot)/lib/rustlib/$host/lib/librustc-stable_rt.asan.a" ] ||
    [ -e "$(rustc --print sysroot)/lib/rustlib/$host/lib/librustc-nightly_rt.asan.a" ] ||
    { say "asan: skipped: no AddressSanitizer runtime for $host"; return; }
  # The library names the runtime's functions and leaves them to the program.
  asan_cargo() {
    env RUSTC_BOOTSTRAP=1 RUSTFLAGS='-Zsanitizer=address --cfg sanitized' ASAN_OPTIONS=detect_odr_violation=0 \
      UBSAN_OPTIONS=halt_on_error=1 PFKEY_TEST_CFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all" \
      "$cargo" "$@" --target "$host" --target-dir target/sanitize
  }
  # The shared object for the C programs.
  asan_cargo build --locked --quiet || { failed=1; return; }
  # shellcheck disable=SC2046
  run asan asan_cargo test --locked --no-fail-fast --lib --bins $(integration)
}

valgrind_part() {
  command -v valgrind >/dev/null || { say "valgrind: skipped: not installed"; return; }
  command -v "${CC:-cc}" >/dev/null || { say "valgrind: skipped: no C compiler"; return; }
  $cargo build --locked --quiet || { failed=1; return; }
  dir=target/sanitize/valgrind
  rm -rf $dir
  mkdir -p $dir
  ln -s "$PWD/target/debug/libpfkey_rs.so" $dir/libpfkey_rs.so.0
  programs=0
  for p in sadb_add sadb_dump sadb_register sadb_static sadb_dynamic spd two_listeners fork_and_pass many embedded_engine xfrm; do
    ${CC:-cc} -std=gnu11 -g -Iinclude -o $dir/$p c-tests/$p.c c-tests/common.c -Ltarget/debug -lpfkey_rs \
      -Wl,-rpath,"$PWD/$dir" || { failed=1; return; }
    printf '#!/bin/sh\nexec valgrind --quiet --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite %s "%s" "$@"\n' \
      "--log-file=$PWD/$dir/log.$p.%p" "$PWD/$dir/$p" >$dir/$p-checked
    chmod +x $dir/$p-checked
    programs=$((programs + 1))
  done
  ok=1
  target/debug/pfkeyd -- c-tests/run-all "$PWD/$dir" -checked >$dir/said 2>&1 || ok=0
  PFKEY_BACKEND=embedded PFKEYD=$PWD/target/debug/pfkeyd $dir/many-checked >>$dir/said 2>&1 || ok=0
  PFKEY_BACKEND=embedded PFKEYD=$PWD/target/debug/pfkeyd $dir/xfrm-checked >>$dir/said 2>&1 || ok=0
  $dir/embedded_engine-checked >>$dir/said 2>&1 || ok=0
  if [ $ok = 1 ] && [ -z "$(cat $dir/log.*)" ] && grep -q "== sadb_dynamic" $dir/said; then
    say "valgrind: $programs programs, $(grep -c '^== ' $dir/said) runs and 3, nothing found"
  else
    failed=1
    say "valgrind: FAILED"
    cat $dir/log.* | head -n 60
  fi
}

# A toolchain with a component: the default one, or a nightly.
toolchain_with() {
  for toolchain in "" +nightly; do
    # shellcheck disable=SC2086
    case $1 in
      miri) "$cargo" $toolchain miri --version >/dev/null 2>&1 && { echo "$toolchain"; return 0; } ;;
      rust-src) [ -e "$(rustc $toolchain --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library/std/Cargo.toml" ] && { echo "$toolchain"; return 0; } ;;
    esac
  done
  return 1
}

tsan() {
  toolchain=$(toolchain_with rust-src) || { say "tsan: skipped: no toolchain has rust-src"; return; }
  # pfkeyd has no threads: it is built without.
  "$cargo" build --locked --quiet --package pfkeyd || { failed=1; return; }
  # shellcheck disable=SC2086
  run tsan env RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=thread PFKEYD="$PWD/target/debug/pfkeyd" \
    "$cargo" $toolchain test --locked --no-fail-fast -Zbuild-std --target "$host" --target-dir target/sanitize-thread \
    --lib --test descriptor --test batch --test resolve
}

miri() {
  toolchain=$(toolchain_with miri) || { say "miri: skipped: no toolchain has it"; return; }
  # Interfaces' names are foreign functions that it lacks, and a loop of thousands takes it minutes.
  # shellcheck disable=SC2086
  run "miri, unit tests" env RUST_BACKTRACE=0 MIRIFLAGS="-Zmiri-disable-isolation" "$cargo" $toolchain miri test --locked --no-fail-fast \
    --target-dir target/sanitize-miri --package libpfkey_rs --package pfkey --package pfkey-wire --package pfkey-model --package pfkey-print --lib -- \
    --skip a_scope_is_a_name_only_where_it_is_one --skip more_requests_than_the_length_field_can_count
  # shellcheck disable=SC2086
  run "miri, capi's arguments" env RUST_BACKTRACE=0 MIRIFLAGS="-Zmiri-disable-isolation" "$cargo" $toolchain miri test --locked --no-fail-fast \
    --target-dir target/sanitize-miri --test capi_arguments
}

for part in ${PARTS:-asan valgrind tsan miri}; do
  case $part in
    valgrind) valgrind_part ;;
    asan | tsan | miri) $part ;;
    *) say "$part: no such part"; failed=1 ;;
  esac
done
exit $failed
