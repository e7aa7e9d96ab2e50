//! `usysv doctor`: can this machine run us?
//!
//! What can be tried is tried. Each finding is a line; what is not well has a second one that says what to do.

use crate::args::Doctor;
use crate::output::{self, Colour, Paper};
use crate::{Code, Failure, Outcome, limits, program};
use rustix::fs::StatVfsMountFlags;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use usysv::os::errno::Errno;
use usysv::os::support::{self, Answer};
use usysv::semantics::limits::effective;
use usysv::shm::layout;
use usysv::{MessageType, Queue, Selector};

/// How a finding is to be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Level {
    /// As it should be.
    Ok,
    /// Good to know; nothing is wrong.
    Note,
    /// Something does not work, or not as it should.
    Bad,
}

struct Finding {
    level: Level,
    what: &'static str,
    text: String,
    remedy: Option<String>,
}

/// What was found so far.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, what: &'static str, text: impl Into<String>) {
        self.0.push(Finding { level: Level::Ok, what, text: text.into(), remedy: None });
    }

    fn note(&mut self, what: &'static str, text: impl Into<String>) {
        self.0.push(Finding { level: Level::Note, what, text: text.into(), remedy: None });
    }

    fn bad(&mut self, what: &'static str, text: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Finding { level: Level::Bad, what, text: text.into(), remedy: Some(remedy.into()) });
    }
}

/// Looks at everything.
pub fn doctor(arguments: &Doctor, given: Option<&Path>) -> Outcome {
    let mut findings = Findings::default();
    if directory(&mut findings, given) {
        files(&mut findings);
        a_queue(&mut findings);
    }
    limits_in_force(&mut findings);
    system_calls(&mut findings);
    kernel(&mut findings);
    library(&mut findings);
    print(arguments, &findings.0)
}

fn print(arguments: &Doctor, findings: &[Finding]) -> Outcome {
    let bad = findings.iter().filter(|finding| finding.level == Level::Bad).count();
    let mut paper = Paper::new();
    if arguments.format.json {
        let one = |finding: &Finding| {
            let level = match finding.level {
                Level::Ok => "ok",
                Level::Note => "note",
                Level::Bad => "bad",
            };
            json!({ "level": level, "what": finding.what, "text": finding.text, "remedy": finding.remedy })
        };
        let findings: Value = findings.iter().map(one).collect();
        paper.json(&json!({ "well": bad == 0, "findings": findings }))?;
    } else {
        for finding in findings {
            let (word, colour) = match finding.level {
                Level::Ok => ("ok  ", Colour::Green),
                Level::Note => ("note", Colour::Plain),
                Level::Bad => ("BAD ", Colour::Red),
            };
            let word = paper.paint(colour, word);
            paper.line(&format!("{word}  {:<14}{}", finding.what, finding.text))?;
            if let Some(remedy) = &finding.remedy {
                paper.line(&format!("      {:<14}-> {remedy}", ""))?;
            }
        }
        let end = match bad {
            0 => paper.paint(Colour::Green, "all is well"),
            1 => paper.paint(Colour::Red, "1 thing is not well"),
            bad => paper.paint(Colour::Red, &format!("{bad} things are not well")),
        };
        paper.line(&end)?;
    }
    paper.finish()?;
    Ok(if bad == 0 { Code::Well } else { Code::Wrong })
}

/// The directory; false if nothing can live there.
fn directory(findings: &mut Findings, given: Option<&Path>) -> bool {
    const WHAT: &str = "directory";
    let named = std::env::var_os("USYSV_DIR").filter(|value| !value.is_empty());
    let (origin, asked) = match (given, named) {
        (Some(given), _) => ("--dir", Some(given.to_owned())),
        (None, Some(named)) => ("USYSV_DIR", Some(PathBuf::from(named))),
        (None, None) => ("by default", None),
    };
    let asked =
        asked.map(|asked| if given.is_some() { std::path::absolute(&asked).unwrap_or(asked) } else { asked });
    if let Some(asked) = asked.filter(|asked| *asked != usysv::directory()) {
        let text = format!("{} ({origin}) is too long for a directory of queues", asked.display());
        findings.bad(WHAT, text, "use a path of less than 190 bytes");
        return false;
    }
    let directory = usysv::directory();
    let name = directory.display();
    if !directory.is_absolute() {
        let remedy = "use an absolute path: a relative one means another directory after each chdir";
        findings.bad(WHAT, format!("{name} ({origin}) is a relative path"), remedy);
    }
    let there = match fs::metadata(&directory) {
        Ok(there) => there,
        Err(error) => {
            let remedy = format!("create it: mkdir -p {name} && chmod 1777 {name}");
            findings.bad(WHAT, format!("{name} ({origin}): {error}"), remedy);
            return false;
        }
    };
    if !there.is_dir() {
        findings.bad(WHAT, format!("{name} ({origin}) is not a directory"), "set USYSV_DIR to one");
        return false;
    }
    let mode = there.permissions().mode() & 0o7777;
    let all = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let usable = rustix::fs::accessat(rustix::fs::CWD, &directory, all, rustix::fs::AtFlags::EACCESS).is_ok();
    if !usable {
        let text = format!("{name} ({origin}), mode {mode:04o}: this user cannot create queues in it");
        findings.bad(WHAT, text, format!("chmod 1777 {name}, or set USYSV_DIR to a directory of one's own"));
    } else if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        let text =
            format!("{name} ({origin}), mode {mode:04o}: whoever may write here may remove others' queues");
        findings.bad(WHAT, text, format!("chmod +t {name}"));
    } else {
        findings.ok(WHAT, format!("{name} ({origin}), mode {mode:04o}"));
    }
    file_system(findings, &directory);
    true
}

fn file_system(findings: &mut Findings, directory: &Path) {
    const WHAT: &str = "file system";
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    // Where a mapping is not memory that all processes share.
    const REMOTE: [(u64, &str); 5] = [
        (0x6969, "nfs"),
        (0xff53_4d42, "cifs"),
        (0xfe53_4d42, "smb2"),
        (0x0102_1997, "9p"),
        (0x00c3_6400, "ceph"),
    ];
    let (Ok(kind), Ok(space)) = (rustix::fs::statfs(directory), rustix::fs::statvfs(directory)) else {
        findings.bad(WHAT, "cannot be looked at", "is the directory on a file system that is still there?");
        return;
    };
    let kind = kind.f_type as u64;
    if let Some((_, name)) = REMOTE.iter().find(|(number, _)| *number == kind) {
        let text = format!("{name}: queues cannot be shared over a network");
        findings.bad(WHAT, text, "set USYSV_DIR to a directory on tmpfs, such as /dev/shm");
    }
    if space.f_flag.contains(StatVfsMountFlags::RDONLY) {
        findings.bad(WHAT, "mounted read-only", "remount it, or set USYSV_DIR to another");
    }
    if kind == TMPFS || kind == RAMFS {
        findings.ok(WHAT, "tmpfs: in memory");
    } else {
        let text =
            "on a disk: works, but queues survive a restart, and pages may be written out. tmpfs is better";
        findings.note(WHAT, text);
    }
    // What an empty queue takes, and what a queue of the usual size takes when it is full of short messages.
    const EMPTY: u64 = 8 << 10;
    const USUAL: u64 = 64 << 10;
    let (free, total) = (space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize);
    let bounded = total != 0;
    let text = format!(
        "{} free of {}: room for {} queues in use",
        output::size(free),
        output::size(total),
        free / USUAL
    );
    match free {
        _ if !bounded => findings.ok("space", "unlimited"),
        0..EMPTY => findings.bad("space", text, "make room, or mount it larger: mount -o remount,size=SIZE"),
        EMPTY..1_048_576 => findings.bad(
            "space",
            format!("{text}. msgget and msgsnd answer ENOMEM when it is full"),
            "remove what is not needed (`usysv rm --stale`), or mount it larger: mount -o remount,size=SIZE \
             (docker: --shm-size)",
        ),
        _ => findings.ok("space", text),
    }
    if space.f_files != 0 && space.f_favail < 64 {
        let text = format!("{} files more can be created; a queue takes 3", space.f_favail);
        findings.bad("space", text, "remove files, or mount it with more: mount -o remount,nr_inodes=N");
    }
}

/// What a file in the directory is that has a name of ours.
#[derive(PartialEq, Eq, Debug)]
enum Kind {
    /// Part of a queue, or of what belongs to all.
    Ours,
    /// Of another version of the layout.
    Version(u64),
    /// Being made, or left over from that.
    Scratch,
    /// Not of our making.
    Foreign(&'static str),
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number: &u32| number.to_string() == text)
}

/// What belongs to all queues: hints and limits.
const COMMON: [&str; 6] = ["ns", "limits", "msgmax", "msgmnb", "msgmni", "msg_next_id"];

fn judge(path: &Path, name: &str) -> Kind {
    let Ok(there) = fs::symlink_metadata(path) else { return Kind::Ours };
    let rest = name.strip_prefix("usysv.").unwrap_or_default();
    match rest.split_once('.') {
        None if COMMON.contains(&rest) => match there.is_file() {
            true => Kind::Ours,
            false => Kind::Foreign("is not a regular file"),
        },
        Some(("q", index)) if number(index).is_some_and(|index| index < usysv::namespace::INDICES) => {
            control(path, &there)
        }
        Some(("b", id)) if number(id).is_some() => match there.is_file() {
            true => Kind::Ours,
            false => Kind::Foreign("is not a regular file"),
        },
        Some(("k", key)) => {
            let hex = key.split('.').next().unwrap_or_default();
            match hex.len() == 8 && hex.bytes().all(|digit| digit.is_ascii_hexdigit()) && there.is_symlink() {
                true => Kind::Ours,
                false => Kind::Foreign("is not the link of a key"),
            }
        }
        Some(("t", _)) => Kind::Scratch,
        _ => Kind::Foreign("is not a name that usysv uses"),
    }
}

/// The first words of a control file.
fn control(path: &Path, there: &fs::Metadata) -> Kind {
    if !there.is_file() {
        let kind = there.file_type();
        let is = match (kind.is_symlink(), kind.is_dir(), kind.is_fifo()) {
            (true, _, _) => "is a link",
            (_, true, _) => "is a directory",
            (_, _, true) => "is a fifo",
            _ => "is not a regular file",
        };
        return Kind::Foreign(is);
    }
    let mut words = [0; 16];
    if there.len() < layout::ARENA
        || File::open(path).and_then(|mut file| file.read_exact(&mut words)).is_err()
    {
        return Kind::Foreign("cannot be read, or is too short for a queue");
    }
    let word = |from: usize| u64::from_le_bytes(words[from..from + 8].try_into().unwrap_or_default());
    match (word(0), word(8)) {
        (layout::MAGIC, layout::VERSION) => Kind::Ours,
        (layout::MAGIC, version) => Kind::Version(version),
        _ => Kind::Foreign("does not begin as a queue does"),
    }
}

fn files(findings: &mut Findings) {
    const WHAT: &str = "files";
    let directory = usysv::directory();
    let Ok(entries) = fs::read_dir(&directory) else { return };
    let (mut queues, mut well) = (0, true);
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with("usysv.")) else { continue };
        let path = entry.path();
        let shown = output::printable(path.as_os_str().as_bytes());
        match judge(&path, name) {
            Kind::Ours => queues += u32::from(name.starts_with("usysv.q.")),
            Kind::Version(version) => {
                well = false;
                let text = format!("{shown} has format {version}, and this version uses {}", layout::VERSION);
                findings.bad(WHAT, text, "its queue is not seen: end its users and remove the file, or use the version that made it");
            }
            Kind::Foreign(why) => {
                well = false;
                let text = format!("{shown} {why}");
                findings.bad(
                    WHAT,
                    text,
                    "it is in the way of a queue: find out who made it (ls -l), and remove it",
                );
            }
            Kind::Scratch => {
                let age = fs::symlink_metadata(&path).map_or(0, |there| output::now() as i64 - there.ctime());
                if age > 60 {
                    findings.note(
                        WHAT,
                        format!("{shown} was left by a creator that died; it will be swept away"),
                    );
                }
            }
        }
    }
    if well {
        findings.ok(WHAT, format!("{queues} queue{}, nothing foreign", if queues == 1 { "" } else { "s" }));
    }
}

/// Makes a queue, uses it, and removes it.
fn a_queue(findings: &mut Findings) {
    const WHAT: &str = "a queue";
    let used = || {
        let queue = Queue::private(0o600)?;
        let used = (|| {
            let mtype = MessageType::try_from(1)?;
            let (text, mut buffer) = (*b"usysv doctor", [0; 64]);
            queue.try_send(mtype, &text)?;
            let received = queue.try_receive(Selector::First, &mut buffer)?;
            Ok(buffer.get(..received.length) == Some(&text[..]))
        })();
        queue.remove()?;
        used
    };
    match used() {
        Ok(true) => findings.ok(WHAT, "was made, used and removed"),
        Ok(false) => findings.bad(WHAT, "gave back another message than was sent", "report it"),
        Err(error) => {
            let error: usysv::Error = error;
            let remedy = match error.kind() {
                usysv::ErrorKind::TooManyQueues => "raise msgmni, or remove queues (`usysv rm --stale`)",
                usysv::ErrorKind::OutOfMemory => "see what is said of space here; see also `ulimit -v`",
                usysv::ErrorKind::PermissionDenied => "see what is said of the directory here",
                usysv::ErrorKind::TooLong => "raise msgmax",
                _ => "see what is said of the directory and of system calls here",
            };
            findings.bad(WHAT, format!("cannot be made and used: {error}"), remedy);
        }
    }
}

fn limits_in_force(findings: &mut Findings) {
    const WHAT: &str = "limits";
    let limits = effective();
    let of = |name: &str| limits.iter().find(|limit| limit.name == name).map_or(0, |limit| limit.value);
    let list = limits.map(|limit| {
        format!("{} {} ({})", limit.name, limit.value, limits::origin(limit.name, limit.origin))
    });
    let (max, mnb, mni) = (of("msgmax"), of("msgmnb"), of("msgmni"));
    if mni == 0 {
        findings.bad(WHAT, "msgmni is 0: no queue can be made", "raise it: USYSV_MSGMNI, or kernel.msgmni");
    }
    if max > layout::MAX_TEXT {
        let text = format!("msgmax {max} is more than a queue can hold in one text, {}", layout::MAX_TEXT);
        findings.bad(WHAT, text, "longer texts fail with ENOMEM: lower msgmax");
    } else if max > mnb {
        let text = format!("msgmax {max} is above msgmnb {mnb}: texts between the two never fit");
        findings.bad(WHAT, text, "raise msgmnb, or lower msgmax");
    } else {
        findings.ok(WHAT, list.join(", "));
    }
    let size = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    if size.is_some_and(|size| size < layout::FILE) {
        let text = format!("files may have {} (ulimit -f)", output::size(size.unwrap_or(0)));
        if size.is_some_and(|size| size < layout::ARENA + (1 << 20)) {
            findings.bad(WHAT, text, "raise it: a queue's files are sparse, but look up to 2 GiB long");
        } else {
            findings.note(WHAT, format!("{text}: queues made here hold less than others"));
        }
    }
    let space = rustix::process::getrlimit(rustix::process::Resource::As).current;
    if let Some(space) = space {
        // Each queue in use takes 8 MiB of address space, more when it holds more.
        let queues = space / (8 << 20);
        findings.note(
            WHAT,
            format!(
                "address space {} (ulimit -v): at most {queues} queues in a process",
                output::size(space)
            ),
        );
    }
}

fn why(errno: Errno) -> String {
    std::io::Error::from_raw_os_error(errno.0).to_string()
}

fn system_calls(findings: &mut Findings) {
    const WHAT: &str = "system calls";
    let mut needed = |name: &'static str, answer: Answer, without: &str, remedy: &str| match answer {
        Ok(()) => findings.ok(name, "works"),
        Err(errno) => findings.bad(name, format!("{}: {without}", why(errno)), remedy),
    };
    let allow = "let the sandbox (seccomp) allow it";
    needed("futex", support::futex(), "nobody can wait", allow);
    needed("robust list", support::robust_list(), "the death of a process in a call is not noticed", allow);
    let mut wished = |name: &'static str, works: bool, without: &str| match works {
        true => findings.ok(name, "works"),
        false => findings.note(name, format!("refused: {without}")),
    };
    wished("membarrier", support::membarrier(), "queues that are removed stay mapped until the process ends");
    wished("madvise", support::populate().is_ok(), "memory is reserved page by page, a little slower");
    wished(
        "process_vm_*",
        support::process_vm().is_ok(),
        "not needed as long as bad pointers are found otherwise",
    );
    if support::finds_bad_pointers() {
        findings.ok("bad pointers", "are found, and answered with EFAULT");
    } else {
        let text = "are not found: a program that passes one crashes instead of getting EFAULT";
        findings.bad(
            "bad pointers",
            text,
            "let the sandbox allow rt_sigprocmask and futex, or process_vm_readv",
        );
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    match status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map(str::trim) {
        Some("0") => findings.ok(WHAT, "no seccomp filter"),
        Some(_) => {
            findings.note(WHAT, "a seccomp filter is in force; what it refuses of the above is said there")
        }
        None => findings.bad(
            "/proc",
            "is not mounted, or not readable: names of processes are unknown, and deaths are found later",
            "mount -t proc proc /proc",
        ),
    }
}

fn kernel(findings: &mut Findings) {
    const WHAT: &str = "kernel";
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    match support::kernel_queues() {
        Ok(queues) => {
            let text = format!(
                "{release}, with System V queues of its own, {queues} in use: programs without the preload use those"
            );
            findings.note(WHAT, text);
        }
        Err(Errno::ENOSYS) => {
            findings.note(
                WHAT,
                format!("{release}, without System V queues: only the preload gives programs any"),
            );
        }
        Err(errno) => {
            findings.note(WHAT, format!("{release}, its System V queues are refused here: {}", why(errno)))
        }
    }
}

fn library(findings: &mut Findings) {
    const WHAT: &str = "library";
    match program::library() {
        Some(path) => findings.ok(WHAT, format!("{} is what `usysv run` preloads", path.display())),
        None => findings.bad(
            WHAT,
            "libusysv.so was not found beside this tool, in ../lib, LD_LIBRARY_PATH or ldconfig's list",
            "install it, or name it: usysv run --library FILE",
        ),
    }
}

/// The directory for `doctor`, who wants to see it even if it is not there.
pub fn choose(dir: &Path) -> Result<(), Failure> {
    let dir = std::path::absolute(dir)?;
    // What is too long is found out by comparing.
    let _ = usysv::set_directory(dir);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_files_are_told_from_ours() {
        let dir = std::env::temp_dir().join(format!("usysv-judge-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let of = |name: &str| judge(&dir.join(name), name);
        let write = |name: &str, first: [u64; 2], length: u64| {
            let bytes: Vec<u8> = first.iter().flat_map(|word| word.to_le_bytes()).collect();
            fs::write(dir.join(name), bytes).unwrap();
            File::options().write(true).open(dir.join(name)).unwrap().set_len(length).unwrap();
        };
        write("usysv.q.0", [layout::MAGIC, layout::VERSION], layout::ARENA);
        write("usysv.q.1", [layout::MAGIC, 77], layout::ARENA);
        write("usysv.q.2", [1, 2], layout::ARENA);
        write("usysv.q.3", [layout::MAGIC, layout::VERSION], 100);
        write("usysv.q.99999", [layout::MAGIC, layout::VERSION], layout::ARENA);
        write("usysv.ns", [0, 0], 16);
        write("usysv.k.00001234", [0, 0], 16);
        fs::create_dir(dir.join("usysv.q.4")).unwrap();
        std::os::unix::fs::symlink("3", dir.join("usysv.k.0000abcd")).unwrap();
        std::os::unix::fs::symlink("usysv.q.0", dir.join("usysv.q.5")).unwrap();
        assert_eq!(of("usysv.q.0"), Kind::Ours);
        assert_eq!(of("usysv.q.1"), Kind::Version(77));
        for foreign in
            ["usysv.q.2", "usysv.q.3", "usysv.q.4", "usysv.q.5", "usysv.q.99999", "usysv.k.00001234"]
        {
            assert!(matches!(of(foreign), Kind::Foreign(_)), "{foreign}");
        }
        assert_eq!((of("usysv.ns"), of("usysv.k.0000abcd")), (Kind::Ours, Kind::Ours));
        fs::remove_dir_all(&dir).unwrap();
    }
}
