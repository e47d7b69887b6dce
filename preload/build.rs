//! The name by which programs that were linked with `-lpfkey_preload` look for the object.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libpfkey_preload.so.0");
}
