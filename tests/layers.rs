//! The layers are the folders, and each may use only what stands below it.

use std::fs;
use std::path::{Path, PathBuf};

/// Top to bottom.
const LAYERS: [&str; 9] = ["api", "interpose", "abi", "semantics", "namespace", "queue", "txn", "shm", "os"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn no_layer_uses_one_above_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut looked_at = 0;
    for (place, layer) in LAYERS.iter().enumerate() {
        let mut found = Vec::new();
        sources(&root.join(layer), &mut found);
        assert!(!found.is_empty(), "{layer} has no sources");
        for path in found.iter().filter(|path| !path.ends_with("tests.rs")) {
            let code = code(path);
            for above in &LAYERS[..place] {
                let uses = code.contains(&format!("crate::{above}"));
                assert!(!uses, "{} uses {above}, which stands above it", path.display());
            }
            looked_at += 1;
        }
    }
    assert!(looked_at > 30, "only {looked_at} files were looked at");
}

#[test]
fn system_calls_are_made_in_os_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for layer in ["semantics", "namespace", "queue", "txn", "shm"] {
        let mut found = Vec::new();
        sources(&root.join(layer), &mut found);
        for path in found.iter().filter(|path| !path.ends_with("tests.rs")) {
            let code = code(path);
            for call in ["libc::syscall", "libc::mmap", "libc::open", "libc::getenv", "libc::close("] {
                assert!(!code.contains(call), "{} makes a system call: {call}", path.display());
            }
        }
    }
}
