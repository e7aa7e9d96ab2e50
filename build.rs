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
    load_in_two_pieces();
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
    if !is_native_gnu() {
        return;
    }
    let found = Command::new("cc").arg(format!("-print-file-name={ARCHIVE}")).output();
    if found.is_ok_and(|found| PathBuf::from(String::from_utf8_lossy(&found.stdout).trim()).is_absolute()) {
        println!("cargo::rustc-link-lib=gcc_eh");
    }
}

/// A mapped piece of a file costs every program that preloads us some 4 µs at its start, and as its last act.
/// rustc's own linker makes four of them, besides that for zeros; GNU ld makes do with two when it may put constants
/// beside the code, as it always did until 2018. Where it is not installed, or is not what it says, the library is the
/// same but for that.
fn load_in_two_pieces() {
    // GNU ld goes through the archives once, and the unwinder's comes before the standard library, which needs it.
    const OPTIONS: [&str; 3] = ["-fuse-ld=bfd", "-Wl,-z,noseparate-code", "-Wl,-u,_Unwind_Backtrace"];
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    if !is_native_gnu() {
        return;
    }
    let compiler = env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    let asked = Command::new(compiler).args(OPTIONS).arg("-Wl,--version").output();
    if asked.is_ok_and(|said| said.status.success() && said.stdout.starts_with(b"GNU ld")) {
        for option in OPTIONS {
            println!("cargo::rustc-cdylib-link-arg={option}");
        }
    }
}

/// Whether this system's compiler is one for the target.
fn is_native_gnu() -> bool {
    let native = env::var("TARGET").ok() == env::var("HOST").ok();
    native && env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("gnu")
}
