//! The command-line tool, as its users meet it: every command, what `--json` prints, exit codes, other users, and
//! directories with somebody else's files in them.
//!
//! Each test has a directory of its own. What cannot be tested here says `skipped:` and why.

use serde_json::Value;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use usysv::shm::layout;

const TOOL: &str = env!("CARGO_BIN_EXE_usysv");
/// The user who has no rights.
const NOBODY: u32 = 65534;

/// A directory of queues, removed at the end.
struct Place {
    dir: PathBuf,
}

impl Place {
    fn new() -> Place {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("usysv-cli-{}-{number}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777)).unwrap();
        Place { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(TOOL);
        command.args(arguments).env("USYSV_DIR", &self.dir).stdin(Stdio::null());
        for variable in ["LD_PRELOAD", "USYSV_MSGMAX", "USYSV_MSGMNB", "USYSV_MSGMNI", "NO_COLOR"] {
            command.env_remove(variable);
        }
        // A test that fails leaves nobody waiting.
        // SAFETY: one system call in the child.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        command
    }

    /// Runs the tool; text out, text in, and how it ended.
    fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments).output().unwrap())
    }

    fn with_input(&self, arguments: &[&str], input: &[u8]) -> Ended {
        feed(self.command(arguments), input)
    }

    fn well(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(ended.code, 0, "{arguments:?}: {ended:?}");
        assert_eq!(ended.errors, "", "{arguments:?}");
        ended.text
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.well(arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Waits until as many receivers and senders wait in the queue.
    fn until_waiting(&self, id: &str, receivers: u64, senders: u64) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let shown = self.json(&["ls", "--json"]);
            let is = |queue: &&Value| queue["id"].as_u64() == id.parse().ok();
            let queue = shown["queues"].as_array().unwrap().iter().find(is).cloned().unwrap_or_default();
            if (&queue["receivers"], &queue["senders"]) == (&receivers.into(), &senders.into()) {
                return;
            }
            assert!(Instant::now() < deadline, "nobody waits: {shown}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn feed(mut command: Command, input: &[u8]) -> Ended {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A child that does not read it all closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(input);
    Ended::of(child.wait_with_output().unwrap())
}

#[derive(Debug)]
struct Ended {
    code: i32,
    text: String,
    errors: String,
}

impl Ended {
    fn of(output: Output) -> Ended {
        assert_eq!(output.status.signal(), None, "{output:?}");
        Ended {
            code: output.status.code().unwrap(),
            text: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Checks how it ended, and that it said so.
    fn is(&self, code: i32, said: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.errors.contains(said) || self.text.contains(said), "{said}: {self:?}");
    }
}

/// The library to be preloaded: the one that the other lanes test, or the one built for this test.
fn library() -> PathBuf {
    if let Some(library) = std::env::var_os("USYSV_LIB").map(PathBuf::from)
        && library.is_file()
    {
        return library;
    }
    let library = Path::new(TOOL).parent().unwrap().join("deps/libusysv.so");
    assert!(library.is_file(), "{} was not built", library.display());
    library
}

fn skipped(why: &str) {
    println!("skipped: {why}");
    // Past the harness, which keeps what a test prints.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

fn is_root() -> bool {
    // SAFETY: takes no argument.
    unsafe { libc::geteuid() == 0 }
}

fn has(tool: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().unwrap();
    found.status.success()
}

/// The tool where every user can run it, and the library beside it as `make install` puts it.
fn install(place: &Place) -> PathBuf {
    for dir in ["bin", "lib"] {
        fs::create_dir_all(place.path(dir)).unwrap();
        fs::set_permissions(place.path(dir), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (tool, library_there) = (place.path("bin/usysv"), place.path("lib/libusysv.so"));
    fs::copy(TOOL, &tool).unwrap();
    fs::copy(library(), &library_there).unwrap();
    for file in [&tool, &library_there] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    tool
}

#[test]
fn help_and_version() {
    let place = Place::new();
    assert_eq!(place.well(&["--version"]), format!("usysv {}\n", env!("CARGO_PKG_VERSION")));
    assert!(place.well(&["--help"]).contains("Exit status:"));
    for command in
        ["run", "ls", "show", "peek", "send", "recv", "rm", "limits", "top", "check", "doctor", "completions"]
    {
        let help = place.well(&[command, "--help"]);
        assert!(help.contains(&format!("Usage: usysv {command}")), "{help}");
    }
    place.run(&[]).is(2, "Usage");
    place.run(&["ls", "--nonsense"]).is(2, "--nonsense");
    place.run(&["show"]).is(2, "QUEUE");
    place.run(&["show", "queue"]).is(2, "neither an identifier nor a key");
    place.run(&["rm"]).is(2, "which queue?");
}

#[test]
fn messages_go_in_and_come_out() {
    let place = Place::new();
    place.well(&["send", "0x1234", "--create", "-m", "hello"]);
    place.with_input(&["send", "--key", "0x1234", "-t", "7"], b"\x00\xff\n").is(0, "");
    place.with_input(&["send", "0", "-t", "3", "--lines"], b"one\n\ntwo").is(0, "");
    let queue = place.json(&["ls", "--json"])["queues"][0].clone();
    assert_eq!((&queue["key"], &queue["id"]), (&"0x00001234".into(), &0.into()));
    assert_eq!(
        (&queue["messages"], &queue["bytes"], &queue["perms"]),
        (&5.into(), &14.into(), &"600".into())
    );

    assert_eq!(place.well(&["recv", "0x1234"]), "hello");
    assert_eq!(place.well(&["recv", "0", "-t", "-5", "-n", "3", "--lines"]), "one\n\ntwo\n");
    let raw = place.command(&["recv", "0"]).output().unwrap();
    assert_eq!(raw.stdout, b"\x00\xff\n");

    place.run(&["recv", "0", "--nowait"]).is(3, "");
    let began = Instant::now();
    place.run(&["recv", "0", "--timeout", "0.3"]).is(3, "");
    assert!(began.elapsed() >= Duration::from_millis(300));
    place.well(&["send", "0", "-t", "4", "-m", "4"]);
    place.run(&["recv", "0", "-w", "--except", "4"]).is(3, "");
    let line: Value = serde_json::from_str(&place.well(&["recv", "0", "--json"])).unwrap();
    assert_eq!(line, serde_json::json!({ "type": 4, "length": 1, "text": "4" }));
    place.well(&["send", "0", "-m", "longer than that"]);
    assert_eq!(place.well(&["recv", "0", "--bytes", "6"]), "longer");

    place.with_input(&["send", "0"], &[b'x'; 9000]).is(1, "longer than msgmax");
    for _ in 0..2 {
        place.with_input(&["send", "0", "-w"], &[b'x'; 8192]).is(0, "");
    }
    place.run(&["send", "0", "-w", "-m", "no room"]).is(3, "full");
    place.run(&["send", "7", "-m", "x"]).is(1, "no such queue");
    place.run(&["send", "0x7", "-m", "x"]).is(1, "key 0x00000007: no such queue");
    place.run(&["send", "0", "-t", "0", "-m", "x"]).is(2, "not a type");
    place.run(&["send", "0", "-c", "-m", "x"]).is(2, "--create needs a key");
}

#[test]
fn receivers_wait_and_are_served() {
    let place = Place::new();
    place.well(&["send", "0x1", "-c", "-m", "x"]);
    place.well(&["recv", "0"]);
    let waiting = place.start(&["recv", "0", "-n", "0", "-l"]);
    place.until_waiting("0", 1, 0);
    let shown = place.well(&["show", "0"]);
    assert!(shown.contains("to receive") && shown.contains("any message"), "{shown}");
    assert!(place.well(&["ls"]).contains("1 receiver"));
    let waiter = place.json(&["show", "0", "--json"])["waiting_receivers"][0].clone();
    assert_eq!((&waiter["process"]["pid"], &waiter["msgtyp"]), (&waiting.id().into(), &0.into()));
    place.well(&["send", "0", "-m", "one"]);
    place.well(&["send", "0", "-m", "two"]);
    place.until_waiting("0", 1, 0);
    // Removal ends a receiver that takes all there is.
    place.well(&["rm", "0x1"]);
    let output = Ended::of(waiting.wait_with_output().unwrap());
    assert_eq!((output.code, output.text.as_str()), (0, "one\ntwo\n"));
}

#[test]
fn queues_are_shown() {
    let place = Place::new();
    place.well(&["send", "0xffffffff", "-c", "--mode", "640", "-t", "5", "-m", "one"]);
    place.well(&["send", "0", "-t", "5", "-m", "three"]);
    place.well(&["send", "0", "-t", "9", "-m", "nine"]);

    let shown = place.json(&["show", "0", "--json"]);
    assert_eq!((&shown["key"], &shown["perms"]), (&"0xffffffff".into(), &"640".into()));
    let types = shown["types"].as_array().unwrap();
    assert_eq!(types[0], serde_json::json!({ "type": 5, "messages": 2, "bytes": 8, "first": 0 }));
    assert_eq!(types[1], serde_json::json!({ "type": 9, "messages": 1, "bytes": 4, "first": 2 }));
    assert_eq!(shown["files"][0]["path"], place.path("usysv.q.0").to_string_lossy().as_ref());
    assert!(shown["files"][1]["allocated"].as_u64().unwrap() > 0);
    let text = place.well(&["show", "--key", "-1"]);
    assert!(text.contains("0xffffffff") && text.contains("12 of 16384"), "{text}");
    assert!(text.contains("messages carry no time"), "{text}");

    let listed = place.well(&["ls"]);
    let heading = "KEY         ID  OWNER  PERMS  BYTES  MSGS  FULL";
    assert!(listed.starts_with(heading), "{listed}");
    assert!(!listed.contains('\x1b'), "no colours where there is no terminal");
    assert_eq!(place.well(&["ls", "-n", "-o", "key,messages,usedbytes"]), "0xffffffff  3  12\n");
    assert!(place.well(&["ls", "-o", "help"]).contains("LSPID"));
    assert!(place.well(&["ls", "-t"]).contains("never"));
    assert!(place.well(&["ls", "-p"]).contains("(gone)"));
    place.run(&["ls", "-o", "nonsense"]).is(2, "no column nonsense");
    place.run(&["show", "1"]).is(1, "queue 1: no such queue");
    place.run(&["--dir", "/nowhere", "ls"]).is(1, "/nowhere");
    let elsewhere = Place::new();
    assert_eq!(elsewhere.json(&["ls", "--json", "--dir", place.dir.to_str().unwrap()])["queues"][0]["id"], 0);
}

#[test]
fn messages_are_peeked_at() {
    let place = Place::new();
    place.well(&["send", "0x1", "-c", "-t", "1", "-m", "plain\ttext"]);
    place.with_input(&["send", "0", "-t", "2"], b"\x1b[2Jescape").is(0, "");
    place.with_input(&["send", "0", "-t", "1"], &b"long ".repeat(1000)).is(0, "");
    let text = place.well(&["peek", "0"]);
    assert!(text.contains(r"plain\ttext"), "{text}");
    assert!(!text.contains('\x1b') && text.contains("|.[2Jescape|"), "{text}");
    assert!(text.contains("... and 4744 bytes more"), "{text}");
    let seen = place.json(&["peek", "0", "--json", "-t", "1", "--max", "1", "--from", "1"]);
    let message = &seen["messages"][0];
    assert_eq!((&message["position"], &message["length"]), (&2.into(), &5000.into()));
    assert_eq!((&message["complete"], &seen["consistent"]), (&false.into(), &true.into()));
    assert!(place.well(&["peek", "0", "-x", "-n", "1"]).contains("70 6c 61 69 6e"));
    let whole = place.json(&["peek", "0", "--json", "-b", "10000"]);
    assert_eq!(whole["messages"][2]["text"].as_str().unwrap(), "long ".repeat(1000));
    // Nothing was taken.
    assert_eq!(place.json(&["ls", "--json"])["queues"][0]["messages"], 3);
    place.run(&["peek", "0", "-t", "77"]).is(3, "");
    place.run(&["peek", "4"]).is(1, "no such queue");
}

#[test]
fn queues_are_removed() {
    let place = Place::new();
    let make = |key: &str| place.well(&["send", key, "-c", "-m", "x"]);
    let count = || place.json(&["ls", "--json"])["queues"].as_array().unwrap().len();
    for key in ["0x1", "0x2", "0x3", "0x4"] {
        make(key);
    }
    place.well(&["rm", "0", "-k", "2", "-q", "2"]);
    place.run(&["rm", "0", "0x4"]).is(1, "queue 0: no such queue");
    assert_eq!(count(), 0, "the others are removed even so");

    make("0x1");
    make("0x2");
    place.run(&["rm", "--all"]).is(1, "not a terminal");
    assert!(place.well(&["rm", "--all", "--dry-run"]).contains("0x00000002"));
    assert_eq!(count(), 2);
    place.well(&["rm", "-a", "-y"]);
    assert_eq!(count(), 0);
    assert_eq!(place.well(&["rm", "-a", "-y"]), "no queues to remove\n");
}

#[test]
fn stale_queues_are_those_without_users() {
    let place = Place::new();
    let ids = || -> Vec<u64> {
        let listed = place.json(&["ls", "--json"]);
        listed["queues"].as_array().unwrap().iter().map(|queue| queue["id"].as_u64().unwrap()).collect()
    };
    for key in ["0x1", "0x2", "0x3"] {
        place.well(&["send", key, "-c", "-m", "x"]);
    }
    // A receiver waits in one, and one was used last by a process that lives.
    let mut waiting = place.start(&["recv", "0", "-t", "9"]);
    place.until_waiting("0", 1, 0);
    let mut sender = place.command(&["send", "1", "-l"]).stdin(Stdio::piped()).spawn().unwrap();
    sender.stdin.as_mut().unwrap().write_all(b"line\n").unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while place.json(&["ls", "--json"])["queues"][1]["messages"] != 2 {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(place.well(&["rm", "--stale", "--yes"]), "no stale queues\n", "none is a day old");
    let chosen = place.well(&["rm", "--stale", "--older", "0s", "--yes"]);
    assert!(chosen.contains("0x00000003") && chosen.contains("last users are gone"), "{chosen}");
    assert_eq!(ids(), [0, 1]);
    for child in [&mut waiting, &mut sender] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    place.well(&["rm", "--stale", "--older", "0s", "--yes"]);
    assert!(ids().is_empty());
    place.run(&["rm", "--older", "1d"]).is(2, "--stale");
}

/// A child that does not outlive a test that fails.
struct Watched(Child);

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command line of the tool at a terminal, typing `input` once the screen shows `until`.
fn at_terminal(place: &Place, line: &str, steps: &[(&str, &str)]) -> Option<(i32, String)> {
    if !has("script") || !has("stty") {
        skipped("no script(1) or stty(1): nothing is typed at a terminal");
        return None;
    }
    let line = format!("stty cols 120 rows 30; exec {TOOL} {line}");
    let mut command = Command::new("script");
    command.args(["-qefc", &line, "/dev/null"]).env("USYSV_DIR", &place.dir).env("TERM", "xterm");
    command.env_remove("NO_COLOR").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut watched = Watched(command.spawn().unwrap());
    let child = &mut watched.0;
    let mut output = child.stdout.take().unwrap();
    let (report, seen) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || {
        let (mut all, mut some) = (Vec::new(), [0; 4096]);
        while let Ok(length @ 1..) = output.read(&mut some) {
            all.extend_from_slice(&some[..length]);
            let _ = report.send(String::from_utf8_lossy(&all).into_owned());
        }
        String::from_utf8_lossy(&all).into_owned()
    });
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut screen = String::new();
    // Only what was drawn after the last input counts.
    let mut from = 0;
    for (until, input) in steps {
        while !screen.get(from..).is_some_and(|new| new.contains(until)) {
            let left = deadline.saturating_duration_since(Instant::now());
            screen = seen.recv_timeout(left).unwrap_or_else(|_| panic!("{until:?} is not shown: {screen}"));
        }
        from = screen.len();
        child.stdin.as_mut().unwrap().write_all(input.as_bytes()).unwrap();
    }
    // With its input closed script(1) ends the program; it is to end by itself.
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code().unwrap();
        }
        assert!(Instant::now() < deadline, "does not end: {screen}");
        thread::sleep(Duration::from_millis(10));
    };
    drop(child.stdin.take());
    Some((code, reader.join().unwrap()))
}

#[test]
fn removal_asks_at_a_terminal() {
    let place = Place::new();
    place.well(&["send", "0x1", "-c", "-m", "x"]);
    let Some((code, text)) = at_terminal(&place, "rm --all", &[("[y/N]", "n\n")]) else { return };
    assert!(code == 1 && text.contains("nothing was removed"), "{code}: {text}");
    assert!(text.contains("\x1b[1m"), "a terminal gets colours: {text}");
    let (code, text) = at_terminal(&place, "rm --all", &[("Remove this queue", "y\n")]).unwrap();
    assert_eq!(code, 0, "{text}");
    assert!(place.json(&["ls", "--json"])["queues"].as_array().unwrap().is_empty());
}

#[test]
fn top_watches() {
    let place = Place::new();
    place.well(&["send", "0xbeef", "-c", "-t", "42", "-m", "x"]);
    let text = place.well(&["top", "--batch", "-n", "2", "-d", "0.1", "-s", "key"]);
    assert_eq!(text.matches("0x0000beef").count(), 2, "{text}");
    assert!(text.starts_with("KEY"), "{text}");
    place.run(&["top"]).is(1, "--batch");
    // Into the queue, whose one type is shown, back to the list, and out. (Words: what lies between them is not
    // drawn where it was blank before.)
    let steps = [("0x0000beef", "\r"), ("42", "\x1b"), ("OUT/S", "q")];
    let Some((code, screen)) = at_terminal(&place, "top -d 0.2", &steps) else { return };
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("\x1b[?1049h") && screen.contains("\x1b[?1049l"), "the screen is given back");
}

#[test]
fn broken_queues_are_told_from_sound_ones() {
    let place = Place::new();
    assert!(place.well(&["check"]).contains("no queues"));
    place.well(&["send", "0x1", "-c", "-m", "x"]);
    place.well(&["send", "0x2", "-c", "-m", "y"]);
    assert_eq!(place.well(&["check"]), "queue 0: sound, 1 message\nqueue 1: sound, 1 message\n");
    assert_eq!(place.json(&["check", "0x1", "--json"])["queues"][0]["finding"], "sound");
    // A type that nobody could have sent.
    let body = File::options().write(true).open(place.path("usysv.b.1")).unwrap();
    for granule in 1..8 {
        let offset = layout::granule_offset(granule) + layout::message::TYPE;
        body.write_at(&(-1i64).to_ne_bytes(), offset).unwrap();
    }
    let ended = place.run(&["check"]);
    ended.is(1, "queue 1: BROKEN: message");
    ended.is(1, "queue 0: sound");
    let ended = place.run(&["check", "1", "--json"]);
    let found: Value = serde_json::from_str(&ended.text).unwrap();
    assert_eq!((ended.code, &found["broken"]), (1, &1.into()));
    place.run(&["check", "9"]).is(1, "no such queue");
    place.well(&["rm", "1"]);
}

#[test]
fn queues_in_use_are_checked() {
    let place = Place::new();
    place.well(&["send", "0x1", "-c", "-m", "x"]);
    let mut receiver = place.start(&["recv", "0", "-n", "0"]);
    let mut sender = place.command(&["send", "0", "-l"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = sender.stdin.take().unwrap();
    let feeder = thread::spawn(move || {
        let lines = b"a line\n".repeat(1000);
        // Until the sender is gone.
        while input.write_all(&lines).is_ok() {}
    });
    let mut output = receiver.stdout.take().unwrap();
    let drain = thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()).unwrap());
    for _ in 0..3 {
        let ended = place.run(&["check", "0", "--patience", "10"]);
        ended.is(0, "sound");
    }
    for child in [&mut sender, &mut receiver] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    feeder.join().unwrap();
    assert!(drain.join().unwrap() > 0, "nothing went through");
    place.run(&["check"]).is(0, "sound");
}

#[test]
fn the_doctor_finds_what_is_wrong() {
    let place = Place::new();
    let library = library();
    let near = library.parent().unwrap().to_str().unwrap();
    let examine = |dir: &Path| {
        let output = place.command(&["doctor", "--json", "--dir", dir.to_str().unwrap()]);
        let mut output = output;
        let ended = Ended::of(output.env("LD_LIBRARY_PATH", near).output().unwrap());
        let found: Value = serde_json::from_str(&ended.text).unwrap();
        assert_eq!(found["well"], ended.code == 0, "{found}");
        for finding in found["findings"].as_array().unwrap() {
            assert_eq!(finding["level"] == "bad", finding["remedy"].is_string(), "{finding}");
        }
        (ended.code, found)
    };
    let bad = |found: &Value| -> Vec<String> {
        let all = found["findings"].as_array().unwrap().iter();
        all.filter(|finding| finding["level"] == "bad").map(|finding| finding.to_string()).collect()
    };
    let (code, found) = examine(&place.dir);
    assert_eq!(code, 0, "{:?}", bad(&found));
    assert_eq!(
        fs::read_dir(&place.dir)
            .unwrap()
            .filter(|e| !e.as_ref().unwrap().file_name().as_bytes().ends_with(b".ns"))
            .count(),
        0
    );
    assert!(
        place
            .command(&["doctor"])
            .env("LD_LIBRARY_PATH", near)
            .output()
            .unwrap()
            .stdout
            .ends_with(b"all is well\n")
    );

    let (code, found) = examine(Path::new("/no/such/directory"));
    assert!(code == 1 && bad(&found)[0].contains("mkdir -p"), "{found}");
    fs::write(place.path("usysv.q.7"), "what is this?").unwrap();
    let (code, found) = examine(&place.dir);
    assert!(code == 1 && bad(&found).len() == 1 && bad(&found)[0].contains("usysv.q.7"), "{:?}", bad(&found));
    let other = File::create(place.path("usysv.q.7")).unwrap();
    other.set_len(layout::ARENA).unwrap();
    other.write_at(&layout::MAGIC.to_le_bytes(), 0).unwrap();
    other.write_at(&(layout::VERSION + 1).to_le_bytes(), 8).unwrap();
    let (code, found) = examine(&place.dir);
    assert!(code == 1 && bad(&found)[0].contains(&format!("format {}", layout::VERSION + 1)), "{found}");
    fs::remove_file(place.path("usysv.q.7")).unwrap();
    fs::set_permissions(&place.dir, fs::Permissions::from_mode(0o777)).unwrap();
    let (code, found) = examine(&place.dir);
    assert!(code == 1 && bad(&found)[0].contains("chmod +t"), "{found}");
    let ended = Ended::of(place.command(&["doctor"]).env("USYSV_DIR", "relative").output().unwrap());
    ended.is(1, "relative path");
    let ended = Ended::of(place.command(&["doctor"]).env("USYSV_MSGMAX", "100000").output().unwrap());
    ended.is(1, "raise msgmnb");
}

#[test]
fn limits_say_where_they_come_from() {
    let place = Place::new();
    let mut command = place.command(&["limits", "--json"]);
    let ended = Ended::of(command.env("USYSV_MSGMAX", "123").output().unwrap());
    let limits: Value = serde_json::from_str(&ended.text).unwrap();
    assert_eq!(
        (&limits["msgmax"]["value"], &limits["msgmax"]["origin"]),
        (&123.into(), &"environment: USYSV_MSGMAX".into())
    );
    assert!(limits["msgmni"]["value"].as_u64().unwrap() <= 32768);
    assert!(place.well(&["limits"]).contains("msgmnb"));

    let text = place.well(&["limits", "--set", "msgmax=100,msgmni=2"]);
    assert!(text.contains(place.path("usysv.msgmax").to_str().unwrap()), "{text}");
    let limits = place.json(&["limits", "--json"]);
    assert_eq!((&limits["msgmax"]["value"], &limits["msgmni"]["value"]), (&100.into(), &2.into()));
    place.with_input(&["send", "0x1", "-c"], &[b'x'; 101]).is(1, "longer than msgmax");
    place.well(&["limits", "--set", "msgmax=101"]);
    place.with_input(&["send", "0x1"], &[b'x'; 101]).is(0, "");
    place.well(&["send", "0x2", "-c", "-m", "x"]);
    place.run(&["send", "0x3", "-c", "-m", "x"]).is(1, "limit of queues");
    place.run(&["limits", "--set", "msgmni=100000"]).is(1, "above 32768");
    place.run(&["limits", "--set", "shmmax=1"]).is(2, "no limit shmmax");
    place.run(&["doctor"]).is(1, "limit of queues");
}

#[test]
fn other_users_see_and_may_not_touch() {
    if !is_root() {
        return skipped("other users' rights need root");
    }
    let place = Place::new();
    let tool = install(&place);
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new(&tool);
        command.args(arguments).env("USYSV_DIR", &place.dir).uid(NOBODY).gid(NOBODY).groups_none();
        Ended::of(command.stdin(Stdio::null()).output().unwrap())
    };
    place.well(&["send", "0x1", "-c", "-m", "secret"]);
    place.well(&["send", "0x2", "-c", "--mode", "444", "-m", "for all to read"]);

    let listed = as_nobody(&["ls"]);
    assert!(
        listed.code == 0 && listed.text.contains("0x00000001") && listed.text.contains("root"),
        "{listed:?}"
    );
    let shown = as_nobody(&["show", "0"]);
    assert!(shown.code == 0 && shown.text.contains("mode denies reading"), "{shown:?}");
    assert!(as_nobody(&["show", "0", "--json"]).text.contains(r#""types_missing": "denied""#));
    as_nobody(&["peek", "0"]).is(1, "mode denies");
    as_nobody(&["recv", "0", "-w"]).is(1, "mode denies");
    as_nobody(&["send", "0", "-m", "x"]).is(1, "mode denies");
    as_nobody(&["peek", "1"]).is(0, "for all to read");
    as_nobody(&["send", "1", "-m", "x"]).is(1, "mode denies");
    as_nobody(&["rm", "0", "1"]).is(1, "only the queue's owner");
    as_nobody(&["rm", "--all", "--yes"]).is(0, "2 queues of other users are left alone");
    as_nobody(&["check"]).is(0, "not checked");
    as_nobody(&["check", "0"]).is(1, "not checked");
    as_nobody(&["limits", "--set", "msgmax=1"]).is(1, "only root and the owner");
    as_nobody(&["top", "-b", "-n", "1", "-d", "0.1"]).is(0, "0x00000001");
    // A queue of their own, which they find and remove.
    as_nobody(&["send", "0x3", "-c", "-m", "mine"]).is(0, "");
    as_nobody(&["rm", "-a", "-y"]).is(0, "0x00000003");
    fs::set_permissions(&place.dir, fs::Permissions::from_mode(0o755)).unwrap();
    as_nobody(&["doctor"]).is(1, "cannot create queues");
    as_nobody(&["doctor"]).is(1, "lib/libusysv.so is what `usysv run` preloads");
}

/// `Command::groups` is not stable: the supplementary groups go before the user does.
trait NoGroups {
    fn groups_none(&mut self) -> &mut Self;
}

impl NoGroups for Command {
    fn groups_none(&mut self) -> &mut Self {
        // SAFETY: one system call in the child, which may fail.
        unsafe {
            self.pre_exec(|| {
                libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>());
                Ok(())
            })
        }
    }
}

#[test]
fn foreign_files_disturb_nobody() {
    let place = Place::new();
    place.well(&["send", "0x1", "-c", "-m", "x"]);
    fs::write(place.path("usysv.q.1"), "short").unwrap();
    File::create(place.path("usysv.q.2")).unwrap().set_len(layout::ARENA).unwrap();
    fs::create_dir(place.path("usysv.q.3")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", place.path("usysv.q.4")).unwrap();
    std::os::unix::fs::symlink("usysv.q.0", place.path("usysv.q.5")).unwrap();
    std::os::unix::fs::symlink("elsewhere", place.path("usysv.k.00000009")).unwrap();
    let fifo = std::ffi::CString::new(place.path("usysv.q.6").as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is a C string.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o666) }, 0);
    // A queue's file under the name of another.
    fs::copy(place.path("usysv.q.0"), place.path("usysv.q.8")).unwrap();
    // A control file of our format whose every other word is nonsense.
    let hostile = File::create(place.path("usysv.q.9")).unwrap();
    hostile.write_all_at(&vec![0xff; 64 << 10], 0).unwrap();
    hostile
        .write_all_at(
            &[layout::MAGIC.to_le_bytes(), layout::VERSION.to_le_bytes(), 9u64.to_le_bytes()].concat(),
            0,
        )
        .unwrap();
    hostile.set_len(layout::ARENA).unwrap();
    fs::write(place.path("usysv.q.4294967296"), "").unwrap();
    fs::write(place.path("usysv.nonsense"), "").unwrap();

    let queues = place.json(&["ls", "--json"])["queues"].clone();
    let ids: Vec<u64> =
        queues.as_array().unwrap().iter().map(|queue| queue["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [0]);
    assert_eq!(place.well(&["check"]), "queue 0: sound, 1 message\n");
    for id in ["1", "2", "3", "4", "5", "6", "8", "9"] {
        for command in ["show", "peek", "check", "rm"] {
            let ended = place.run(&[command, id]);
            assert_eq!(ended.code, 1, "{command} {id}: {ended:?}");
        }
        assert_eq!(place.run(&["recv", id, "-w"]).code, 1);
    }
    place.run(&["show", "0x9"]).is(1, "no such queue");
    place.well(&["top", "-b", "-n", "1", "-d", "0.1"]);
    let ended = place.run(&["doctor"]);
    for name in
        ["usysv.q.1", "usysv.q.2", "usysv.q.3", "usysv.q.4", "usysv.q.5", "usysv.q.6", "usysv.nonsense"]
    {
        ended.is(1, name);
    }
}

/// A static program; `None` if none can be made.
fn static_program(place: &Place) -> Option<PathBuf> {
    let (source, program) = (place.path("static.c"), place.path("static"));
    fs::write(&source, "int main(void) { return 5; }\n").unwrap();
    let made = Command::new("cc").arg("-static").arg(&source).arg("-o").arg(&program).output();
    made.is_ok_and(|made| made.status.success()).then_some(program)
}

#[test]
fn programs_are_run() {
    let place = Place::new();
    let library = library();
    let library = library.to_str().unwrap();
    let run = |arguments: &[&str]| {
        let arguments: Vec<&str> = ["run", "--library", library].iter().chain(arguments).copied().collect();
        place.run(&arguments)
    };
    run(&["--", "sh", "-c", "exit 7"]).is(7, "");
    run(&["sh", "-c", "echo $LD_PRELOAD"]).is(0, "libusysv.so\n");
    let mut beside = place.command(&["run", "--library", library, "sh", "-c", "echo $LD_PRELOAD"]);
    let ended = Ended::of(beside.env("LD_PRELOAD", "libm.so.6").output().unwrap());
    assert!(ended.text.contains("libusysv.so:libm.so.6"), "{ended:?}");
    // The tool itself is a program: it sees the limits that it was given.
    let ended = run(&["--limits", "msgmax=100,msgmni=9", "--", TOOL, "limits", "--json"]);
    let limits: Value = serde_json::from_str(&ended.text).unwrap();
    assert_eq!((&limits["msgmax"]["value"], &limits["msgmni"]["value"]), (&100.into(), &9.into()));
    run(&["--limits", "msgmax=x", "true"]).is(2, "not a number");
    let elsewhere = Place::new();
    run(&["--dir", elsewhere.dir.to_str().unwrap(), "sh", "-c", "echo $USYSV_DIR"])
        .is(0, elsewhere.dir.to_str().unwrap());
    run(&["--dir", "/nowhere", "true"]).is(125, "/nowhere");
    run(&["no-such-program"]).is(127, "not found in PATH");
    run(&["/no/such/program"]).is(127, "no such file");
    fs::write(place.path("not-executable"), "").unwrap();
    run(&[place.path("not-executable").to_str().unwrap()]).is(126, "denied");
    place.run(&["run", "--library", "/nowhere.so", "true"]).is(125, "/nowhere.so");

    if has("ipcmk") {
        run(&["ipcmk", "-Q", "-p", "0640"]).is(0, "Message queue id: 0");
        assert_eq!(place.json(&["ls", "--json"])["queues"][0]["perms"], "640");
    } else {
        skipped("no ipcmk(1): no foreign program made a queue");
    }
}

#[test]
fn programs_that_cannot_be_preloaded_are_refused() {
    let place = Place::new();
    let library = library();
    let library = library.to_str().unwrap();
    let run = |program: &Path| place.run(&["run", "--library", library, program.to_str().unwrap()]);
    let executable =
        |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    match static_program(&place) {
        Some(program) => {
            run(&program).is(126, "statically linked");
            let script = place.path("script");
            fs::write(&script, format!("#!{}\n", program.display())).unwrap();
            executable(&script, 0o755);
            run(&script).is(126, "statically linked");
            place
                .run(&["run", "--library", library, "env", "A=1", program.to_str().unwrap()])
                .is(126, "statically");
        }
        None => skipped("no static program can be linked here"),
    }
    let script = place.path("orphan");
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    executable(&script, 0o755);
    run(&script).is(127, "its interpreter is missing");
    if !is_root() {
        return skipped("programs with other rights need root");
    }
    let (other, program) = (Some(NOBODY), place.path("other"));
    fs::copy("/bin/true", &program).unwrap();
    std::os::unix::fs::chown(&program, other, other).unwrap();
    executable(&program, 0o755);
    run(&program).is(0, "");
    executable(&program, 0o4755);
    run(&program).is(126, "is set-user-ID");
    executable(&program, 0o2755);
    run(&program).is(126, "is set-group-ID");
    // Its own user gains nothing by running it.
    let tool = install(&place);
    let as_nobody = |program: &Path| {
        let mut command = Command::new(&tool);
        command.arg("run").arg(program).uid(NOBODY).gid(NOBODY).groups_none();
        Ended::of(command.output().unwrap())
    };
    executable(&program, 0o4755);
    as_nobody(&program).is(0, "");
    // CAP_NET_BIND_SERVICE, permitted and effective (linux/capability.h, vfs_cap_data, revision 2).
    let capabilities: Vec<u8> =
        [0x0200_0001u32, 1 << 10, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    executable(&program, 0o755);
    let name = std::ffi::CString::new(program.as_os_str().as_bytes()).unwrap();
    // SAFETY: name and value live during the call, and are as long as said.
    let set = unsafe {
        let value = capabilities.as_ptr().cast();
        libc::setxattr(name.as_ptr(), c"security.capability".as_ptr(), value, capabilities.len(), 0)
    };
    if set != 0 {
        return skipped("no file capabilities here");
    }
    as_nobody(&program).is(126, "has file capabilities");
}

#[test]
fn the_library_is_found_where_it_is_installed() {
    let place = Place::new();
    let tool = install(&place);
    let mut command = Command::new(&tool);
    command
        .args(["run", "sh", "-c", "echo $LD_PRELOAD"])
        .env_remove("LD_PRELOAD")
        .env("USYSV_DIR", &place.dir);
    let ended = Ended::of(command.output().unwrap());
    let library = place.path("lib/libusysv.so");
    assert_eq!(ended.text.trim_end(), library.to_str().unwrap(), "{ended:?}");
    fs::remove_file(&library).unwrap();
    let mut command = Command::new(&tool);
    let ended = Ended::of(command.args(["run", "true"]).env_remove("LD_LIBRARY_PATH").output().unwrap());
    // Unless the system has one.
    assert!(ended.code == 125 && ended.errors.contains("--library") || ended.code == 0, "{ended:?}");
}

#[test]
fn completions_are_scripts() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.well(&["completions", shell]);
        assert!(script.contains("doctor") && script.len() > 1000, "{shell}");
        if has(shell) && ["bash", "zsh"].contains(&shell) {
            let mut checker = Command::new(shell);
            checker.arg("-n");
            feed(checker, script.as_bytes()).is(0, "");
        }
    }
    // A reader that has seen enough is no error.
    let mut child = place.start(&["completions", "bash"]);
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
