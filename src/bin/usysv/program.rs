//! Whether a program can be preloaded: what ld.so(8) and execve(2) make of it. And where our library is.

use object::elf::{FileHeader32, FileHeader64, PT_INTERP};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, FileKind, ReadCache, ReadRef};
use rustix::process::getuid;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Why a program cannot be run on these queues.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is none of that name.
    NotFound(String),
    /// It is there, but preloading does not reach it.
    Cannot(String),
}

/// What matters of an ELF file.
#[derive(Debug, PartialEq, Eq)]
struct Binary {
    bits: u8,
    machine: u16,
    /// The dynamic linker that it asks for; none if it is static, or a shared object.
    interpreter: Option<Vec<u8>>,
}

fn headers<'d, Elf: FileHeader<Endian = Endianness>>(
    data: impl ReadRef<'d>,
    bits: u8,
) -> object::Result<Binary> {
    let header = Elf::parse(data)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, data)?;
    let asks = segments.iter().find(|segment| segment.p_type(endian) == PT_INTERP);
    let interpreter = match asks {
        Some(segment) => segment.interpreter(endian, data)?.map(<[u8]>::to_vec),
        None => None,
    };
    Ok(Binary { bits, machine: header.e_machine(endian), interpreter })
}

/// Reads an ELF file's headers; `None` if it is none.
fn binary(path: &Path) -> Option<Binary> {
    let cache = ReadCache::new(File::open(path).ok()?);
    match FileKind::parse(&cache).ok()? {
        FileKind::Elf32 => headers::<FileHeader32<Endianness>>(&cache, 32).ok(),
        FileKind::Elf64 => headers::<FileHeader64<Endianness>>(&cache, 64).ok(),
        _ => None,
    }
}

/// The file that a program's name stands for, as execvp(3) looks for it.
fn locate(program: &OsStr) -> Result<PathBuf, Refusal> {
    let name = program.to_string_lossy();
    if program.as_bytes().contains(&b'/') {
        let path = PathBuf::from(program);
        let there = path.exists();
        return if there { Ok(path) } else { Err(Refusal::NotFound(format!("{name}: no such file"))) };
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/bin:/usr/bin"));
    let executable = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|there| there.is_file() && there.permissions().mode() & 0o111 != 0)
    };
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(executable);
    found.ok_or_else(|| Refusal::NotFound(format!("{name}: not found in PATH")))
}

/// The interpreter of a script, and its argument.
fn script(path: &Path) -> Option<(OsString, Option<OsString>)> {
    let mut start = Vec::new();
    File::open(path).ok()?.take(256).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?.trim_ascii();
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let (interpreter, argument) = line.split_at(end);
    let argument = argument.trim_ascii();
    let argument = (!argument.is_empty()).then(|| OsStr::from_bytes(argument).to_owned());
    (!interpreter.is_empty()).then(|| (OsStr::from_bytes(interpreter).to_owned(), argument))
}

/// The program that env(1) is asked to run: its first argument that is neither an option nor an assignment.
fn run_by_env(arguments: &[OsString]) -> Option<&OsString> {
    arguments.iter().find(|word| !word.as_bytes().starts_with(b"-") && !word.as_bytes().contains(&b'='))
}

fn is_env(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "env")
}

/// Says whether a program can be run with the library preloaded.
pub fn examine(command: &[OsString], library: &Path) -> Result<(), Refusal> {
    /// The kernel follows as many scripts whose interpreter is a script.
    const DEPTH: usize = 5;
    let [program, arguments @ ..] = command else {
        return Err(Refusal::NotFound("no program given".to_owned()));
    };
    let mut path = locate(program)?;
    let mut arguments: Vec<OsString> = arguments.to_vec();
    for _ in 0..=DEPTH {
        if let Some((interpreter, argument)) = script(&path) {
            // Words behind `env` in a first line: one argument, which only `env -S` takes apart.
            arguments = argument.map(|text| words(&text)).unwrap_or_default();
            path = locate(&interpreter).map_err(|refusal| match refusal {
                Refusal::NotFound(why) | Refusal::Cannot(why) => {
                    Refusal::NotFound(format!("{}: its interpreter is missing: {why}", path.display()))
                }
            })?;
            continue;
        }
        preloadable(&path, library)?;
        // What env starts is the program that is meant.
        match run_by_env(&arguments) {
            Some(next) if is_env(&path) => match locate(next) {
                Ok(next) => {
                    path = next;
                    arguments.clear();
                }
                // That is for env to say.
                Err(_) => return Ok(()),
            },
            _ => return Ok(()),
        }
    }
    // The kernel will say ELOOP.
    Ok(())
}

fn words(text: &OsStr) -> Vec<OsString> {
    let words = text.as_bytes().split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    words.map(|word| OsStr::from_bytes(word).to_owned()).collect()
}

/// Whether executing a file gives more rights than its caller has. Then the dynamic linker ignores LD_PRELOAD.
fn gains_rights(path: &Path) -> Option<&'static str> {
    const SET_USER: u32 = 0o4000;
    const SET_GROUP: u32 = 0o2000;
    const GROUP_EXECUTE: u32 = 0o10;
    let there = fs::metadata(path).ok()?;
    let no_suid =
        rustix::fs::statvfs(path).is_ok_and(|fs| fs.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID));
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let no_new = status.lines().any(|line| line.starts_with("NoNewPrivs:") && line.ends_with('1'));
    if no_suid || no_new {
        return None;
    }
    let (user, group) = (getuid().as_raw(), rustix::process::getgid().as_raw());
    if there.mode() & SET_USER != 0 && there.uid() != user {
        return Some("set-user-ID");
    }
    if there.mode() & (SET_GROUP | GROUP_EXECUTE) == SET_GROUP | GROUP_EXECUTE && there.gid() != group {
        return Some("set-group-ID");
    }
    let mut value = [0; 64];
    let capabilities = rustix::fs::getxattr(path, "security.capability", &mut value);
    (user != 0 && capabilities.is_ok_and(|length| length > 0)).then_some("has file capabilities")
}

fn preloadable(path: &Path, library: &Path) -> Result<(), Refusal> {
    let name = path.display();
    if let Some(why) = gains_rights(path) {
        let why = if why.starts_with("has") { why.to_owned() } else { format!("is {why}") };
        return Err(Refusal::Cannot(format!(
            "{name} {why}: the dynamic linker preloads nothing into a program that has more rights than its \
             caller. Run it as the user whose rights it takes"
        )));
    }
    // No ELF file, or one that may not be read: execve(2) knows better.
    let Some(program) = binary(path) else { return Ok(()) };
    let ours = binary(library);
    if let Some(ours) = ours.filter(|ours| (ours.bits, ours.machine) != (program.bits, program.machine)) {
        return Err(Refusal::Cannot(format!(
            "{name} is a {}-bit program (machine {}), and {} is for {} bits (machine {}): build the library for it, \
             and name that with --library",
            program.bits,
            program.machine,
            library.display(),
            ours.bits,
            ours.machine
        )));
    }
    let linker = path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"ld-linux"));
    let interpreter = match program.interpreter {
        None if linker => return Ok(()),
        None => {
            return Err(Refusal::Cannot(format!(
                "{name} is statically linked: it has no dynamic linker that could preload a library. Link it \
                 dynamically, or with libusysv.a"
            )));
        }
        Some(interpreter) => interpreter,
    };
    if Path::new(OsStr::from_bytes(&interpreter))
        .file_name()
        .is_some_and(|n| n.as_bytes().starts_with(b"ld-musl"))
    {
        return Err(Refusal::Cannot(format!(
            "{name} is linked with musl, and {} is built for glibc: build the library for musl, and name that with \
             --library",
            library.display()
        )));
    }
    Ok(())
}

/// Names that the library may have, a versioned one before the link that compilers use.
const NAMES: [&str; 2] = ["libusysv.so.0", "libusysv.so"];

/// Where the library may be: with this tool, installed or in the build tree, then where the dynamic linker looks.
pub fn library() -> Option<PathBuf> {
    let tool = std::env::current_exe().ok()?;
    let here = tool.parent()?;
    let near = [".", "deps", "../lib", "../lib64"].map(|dir| here.join(dir)).to_vec();
    // Debian's directories: lib/TRIPLET.
    let triplets = [here.join("../lib/x86_64-linux-gnu"), here.join("../lib/aarch64-linux-gnu")];
    let named = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let named = std::env::split_paths(&named).filter(|dir| dir.is_absolute());
    let places = near.into_iter().chain(triplets).chain(named);
    let found = places.flat_map(|dir| NAMES.map(|name| dir.join(name))).find(|path| path.is_file());
    found.or_else(known_to_ldconfig).and_then(|path| path.canonicalize().ok())
}

fn known_to_ldconfig() -> Option<PathBuf> {
    let list = |tool: &str| Command::new(tool).arg("-p").output().ok();
    let listed = list("/sbin/ldconfig").or_else(|| list("ldconfig"))?;
    // libusysv.so.0 (libc6,x86-64) => /usr/lib/x86_64-linux-gnu/libusysv.so.0
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let of = |name: &str| {
        let known = |line: &str| {
            let (library, path) = line.trim().split_once(" => ")?;
            library.split(' ').next().filter(|library| *library == name).map(|_| PathBuf::from(path))
        };
        listed.lines().find_map(known)
    };
    NAMES.iter().find_map(|name| of(name)).filter(|path| path.is_file())
}

/// Adds the library to what LD_PRELOAD says; `None` if its path cannot stand there.
pub fn preload(library: &Path, present: Option<&OsStr>) -> Option<OsString> {
    let ours = library.as_os_str().as_bytes();
    // ld.so(8): separated by spaces or colons, and there is no way to escape either.
    if ours.iter().any(|byte| matches!(byte, b' ' | b':')) {
        return None;
    }
    let mut value = ours.to_vec();
    for other in present.unwrap_or_default().as_bytes().split(|byte| matches!(byte, b' ' | b':')) {
        if !other.is_empty() && other != ours {
            value.push(b':');
            value.extend_from_slice(other);
        }
    }
    Some(OsStr::from_bytes(&value).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preloads_stand_beside_each_other() {
        let with = |present: &str| preload(Path::new("/l/libusysv.so"), Some(OsStr::new(present)));
        assert_eq!(with("").unwrap(), "/l/libusysv.so");
        assert_eq!(with("/a.so /b.so:/c.so").unwrap(), "/l/libusysv.so:/a.so:/b.so:/c.so");
        assert_eq!(with("/a.so:/l/libusysv.so").unwrap(), "/l/libusysv.so:/a.so");
        assert_eq!(preload(Path::new("/my libs/libusysv.so"), None), None);
    }

    #[test]
    fn scripts_are_followed() {
        let dir = std::env::temp_dir().join(format!("usysv-script-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let path = dir.join("script");
        let first = |text: &str| {
            fs::write(&path, text).unwrap();
            script(&path).map(|(program, argument)| (program.into_string().unwrap(), argument))
        };
        assert_eq!(first("#!/bin/sh\necho"), Some(("/bin/sh".to_owned(), None)));
        let env = first("#! /usr/bin/env python3 \n").unwrap();
        assert_eq!(env, ("/usr/bin/env".to_owned(), Some("python3".into())));
        assert_eq!(first("echo"), None);
        assert_eq!(first("#!\n"), None);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn this_test_is_a_dynamic_program() {
        let program = binary(&std::env::current_exe().unwrap()).unwrap();
        assert!(program.interpreter.is_some());
        assert_eq!(u32::from(program.bits), usize::BITS);
        assert_eq!(binary(Path::new("/proc/self/status")), None);
    }
}
