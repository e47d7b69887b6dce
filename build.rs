//! Link settings of the shared object.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Like libipsec the object has a SONAME and no symbol versions.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libpfkey_rs.so.0");
}
