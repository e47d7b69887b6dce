//! Link settings of the shared object and the install path that `pfkey_open` looks in for `pfkeyd`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=PFKEYD_PATH");
    // Like libipsec the object has a SONAME and no symbol versions.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libpfkey_rs.so.0");
}
