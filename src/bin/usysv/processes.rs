//! Processes and users, by name, as far as /proc and the system's user database tell.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use uzers::{Groups, Users, UsersCache};

/// What is known of a process id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Process {
    /// There is one, of that name.
    Alive(String),
    /// There is none.
    Gone,
}

/// Looks a process, or a thread, up; its name is printable.
pub fn process(pid: u32) -> Process {
    match fs::read(format!("/proc/{pid}/comm")) {
        Ok(name) => Process::Alive(crate::output::printable(name.trim_ascii_end())),
        Err(_) if exists(pid) => Process::Alive("?".to_owned()),
        Err(_) => Process::Gone,
    }
}

/// Whether there is a process of that id, in this pid namespace.
fn exists(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    // Not permitted to signal it: then it exists.
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// The process that a thread belongs to; the thread's own id if that cannot be found out.
pub fn process_of(thread: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let group = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    group.and_then(|group| group.trim().parse().ok()).unwrap_or(thread)
}

/// The pid namespace of this process, by its inode; 0 if it is not known.
pub fn pid_namespace() -> u32 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |there| there.ino() as u32)
}

/// Names of users and groups, each asked for once.
pub struct Names {
    cache: UsersCache,
}

impl Names {
    /// Knows none yet.
    pub fn new() -> Names {
        Names { cache: UsersCache::new() }
    }

    /// A user's name, or number.
    pub fn user(&self, uid: u32) -> String {
        let user = self.cache.get_user_by_uid(uid);
        user.map_or_else(|| uid.to_string(), |user| user.name().to_string_lossy().into_owned())
    }

    /// A group's name, or number.
    pub fn group(&self, gid: u32) -> String {
        let group = self.cache.get_group_by_gid(gid);
        group.map_or_else(|| gid.to_string(), |group| group.name().to_string_lossy().into_owned())
    }
}

/// Which processes have a queue mapped, as far as this user may see.
pub struct Mappings {
    /// By device and inode of the file.
    users: HashMap<(u64, u64), Vec<u32>>,
    /// Whether there were processes that could not be looked at.
    pub incomplete: bool,
}

impl Mappings {
    /// Looks at all processes.
    pub fn read() -> Mappings {
        let mut mappings = Mappings { users: HashMap::new(), incomplete: false };
        let own = std::process::id();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            if pid == own {
                continue;
            }
            // Files of /proc say that they are empty: without room, they would be read a few bytes at a time.
            let mut maps = Vec::with_capacity(64 << 10);
            match File::open(format!("/proc/{pid}/maps")).and_then(|mut file| file.read_to_end(&mut maps)) {
                Ok(_) => mappings.add(pid, &String::from_utf8_lossy(&maps)),
                // Gone meanwhile.
                Err(_) if !exists(pid) => {}
                Err(_) => mappings.incomplete = true,
            }
        }
        mappings
    }

    fn add(&mut self, pid: u32, maps: &str) {
        // address perms offset major:minor inode path
        for line in maps.lines().filter(|line| line.contains("/usysv.q.")) {
            let mut fields = line.split_ascii_whitespace().skip(3);
            let (Some(device), Some(inode)) = (fields.next(), fields.next()) else { continue };
            let parsed = device.split_once(':').and_then(|(major, minor)| {
                let (major, minor) = (u32::from_str_radix(major, 16), u32::from_str_radix(minor, 16));
                Some((rustix::fs::makedev(major.ok()?, minor.ok()?), inode.parse().ok()?))
            });
            if let Some(file) = parsed {
                let users = self.users.entry(file).or_default();
                if users.last() != Some(&pid) {
                    users.push(pid);
                }
            }
        }
    }

    /// The processes that have a file mapped.
    pub fn of(&self, file: (u64, u64)) -> &[u32] {
        self.users.get(&file).map_or(&[], Vec::as_slice)
    }
}

thread_local! {
    static KNOWN: RefCell<HashMap<u32, Process>> = RefCell::new(HashMap::new());
}

/// Looks a process up that may be asked for many times.
pub fn known_process(pid: u32) -> Process {
    KNOWN.with(|known| known.borrow_mut().entry(pid).or_insert_with(|| process(pid)).clone())
}

/// Forgets what [`known_process`] remembers.
pub fn forget() {
    KNOWN.with(|known| known.borrow_mut().clear());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_known() {
        assert!(matches!(process(std::process::id()), Process::Alive(name) if !name.is_empty()));
        assert_eq!(process(u32::MAX), Process::Gone);
        assert_eq!(process_of(std::process::id()), std::process::id());
        assert_ne!(pid_namespace(), 0);
    }

    #[test]
    fn mappings_are_read() {
        let mut mappings = Mappings { users: HashMap::new(), incomplete: false };
        let line = "7f00-7f01 rw-s 00000000 00:1a 4711                       /dev/shm/usysv.q.3\n";
        mappings.add(12, &format!("7e00-7e01 r--p 0 08:01 7 /lib/libc.so.6\n{line}{line}"));
        assert_eq!(mappings.of((rustix::fs::makedev(0, 0x1a), 4711)), [12]);
        assert!(mappings.of((0, 7)).is_empty());
    }
}
