//! Build script: writes the C header into `OUT_DIR` and names the shared object.
//!
//! The header is generated from `src/abi/exports.rs` alone, the one file whose contents are the C interface.
//! `include/usysv.h` is a committed copy: `make header` refreshes it and `tests/header.rs` compares the two.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const EXPORTS: &str = "src/abi/exports.rs";
const CONFIG: &str = "cbindgen.toml";

fn main() {
    for input in [EXPORTS, CONFIG, "build.rs"] {
        println!("cargo::rerun-if-changed={input}");
    }
    write_header();
    name_shared_object();
    unwind_without_libgcc_s();
}

fn write_header() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    let config = cbindgen::Config::from_file(root.join(CONFIG)).expect("cbindgen.toml can be read");
    match cbindgen::Builder::new().with_config(config).with_src(root.join(EXPORTS)).generate() {
        Ok(bindings) => {
            let mut text = Vec::new();
            bindings.write(&mut text);
            let text = String::from_utf8(text).expect("cbindgen writes UTF-8");
            // An annotation taken out of the end of a comment leaves an empty line there.
            let text = text.replace(" *\n */", " */");
            fs::write(out.join("usysv.h"), text).expect("OUT_DIR can be written");
        }
        // rustc will say it better, and with the line that is wrong.
        Err(cbindgen::Error::ParseSyntaxError { .. }) => {}
        Err(error) => panic!("no header from {EXPORTS}: {error}"),
    }
}

/// A program linked with `-lusysv` records this name and looks for it at run time. Its number is the major version:
/// it changes when a program linked before would no longer run. `make library` puts a link of that name beside
/// cargo's `libusysv.so`, `make install` beside the installed file.
///
/// What is exported is for rustc to say: for a cdylib it passes the linker a version script of its own, which lists
/// the exported functions and makes all else local; a second script would be an error. `c-tests/package` compares the
/// outcome with `packaging/exports.txt`.
fn name_shared_object() {
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        let major = env::var("CARGO_PKG_VERSION_MAJOR").expect("set by cargo");
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libusysv.so.{major}");
    }
}

/// The standard library can print a backtrace, and takes the unwinder for it from `libgcc_s.so`: one more library
/// to be loaded at the start of every program that preloads us, a third of what that costs. The same functions
/// from the compiler's archive, where there is one, come before it on the linker's command line and are private
/// to us; then the shared one is not needed.
fn unwind_without_libgcc_s() {
    const ARCHIVE: &str = "libgcc_eh.a";
    let native = env::var("TARGET").ok() == env::var("HOST").ok();
    if !native || env::var("CARGO_CFG_TARGET_ENV").as_deref() != Ok("gnu") {
        return;
    }
    let found = Command::new("cc").arg(format!("-print-file-name={ARCHIVE}")).output();
    if found.is_ok_and(|found| PathBuf::from(String::from_utf8_lossy(&found.stdout).trim()).is_absolute()) {
        println!("cargo::rustc-link-lib=gcc_eh");
    }
}
