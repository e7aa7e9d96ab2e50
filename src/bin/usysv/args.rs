//! What can be typed: commands, options, and what `--help` says of them.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use usysv::{Key, MessageType, Selector};

/// What is printed below every `--help` of the tool itself.
const CODES: &str = "\
Exit status:
  0  done, and all is well
  1  it failed, or something is wrong
  2  the command was not understood
  3  nothing to take (recv, peek), no room (send), or the queue changed too fast to be looked at (check)
`usysv run` ends as the program does, with 125 if usysv itself fails, 126 if the program cannot be run on these
queues, 127 if there is no such program.";

/// System V message queues in userspace: run programs on them, look at them, use them.
///
/// The queues live in a directory: --dir, else USYSV_DIR, else the first of /dev/shm, /run/shm, /var/tmp, /tmp that
/// can be used. They are not the kernel's: ipcs and ipcrm see them when they are run by `usysv run`.
#[derive(Parser, Debug)]
#[command(name = "usysv", version, after_help = CODES, max_term_width = 100)]
pub struct Usysv {
    /// The directory in which the queues live; it must exist
    #[arg(long, value_name = "DIR", global = true, help_heading = "Everywhere")]
    pub dir: Option<PathBuf>,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a program on these queues
    ///
    /// Sets LD_PRELOAD, beside what is there, and USYSV_DIR, and becomes the program; what that starts is on these
    /// queues too. A program that the dynamic linker would not preload is refused: static ones, and those that
    /// would get more rights than their caller.
    Run(Run),
    /// List the queues
    Ls(Ls),
    /// Show everything about one queue
    Show(Show),
    /// Show messages without taking them
    ///
    /// Ends with status 3 if there is none that is wanted.
    Peek(Peek),
    /// Send messages
    ///
    /// One message: the text given with --message, else all of the standard input. With --lines, a message for
    /// every line.
    Send(Send),
    /// Take messages out and print their texts
    ///
    /// Waits if there is none. The text is printed as it is, with nothing added.
    Recv(Recv),
    /// Remove queues, with the messages in them
    Rm(Rm),
    /// Show the limits, and where each comes from; or set them
    Limits(Limits),
    /// Watch the queues
    ///
    /// A full-screen view, refreshed every second: who sends and receives how much, how full the queues are, who
    /// waits. Press h in it for its keys. With --batch, plain text instead.
    Top(Top),
    /// Check every invariant of queues in use
    ///
    /// Looks at one consistent state of each queue, and repairs nothing. Ends with status 1 if one is broken, with 3
    /// if none is, but one changed faster than it could be looked at.
    Check(Check),
    /// Find out whether this machine can run usysv
    ///
    /// Looks at the directory, the system calls that the library uses, the limits, and what the kernel itself
    /// offers. A line for each, and what to do about what is not well. Ends with status 1 if something is not.
    Doctor(Doctor),
    /// Print a completion script for a shell
    Completions(Completions),
}

/// `--json`.
#[derive(Args, Debug, Clone, Copy)]
pub struct Format {
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

/// A queue, by identifier or key.
#[derive(Args, Debug, Clone)]
#[group(required = true, multiple = false)]
pub struct Target {
    /// The queue's identifier (decimal), or its key (0x...), as `usysv ls` prints them
    #[arg(value_name = "QUEUE", value_parser = name)]
    pub queue: Option<Name>,

    /// The queue's key, decimal or 0x...
    #[arg(short, long, value_name = "KEY", value_parser = key, allow_negative_numbers = true)]
    pub key: Option<Key>,
}

/// How a queue is named.
#[derive(Clone, Copy, Debug)]
pub enum Name {
    /// By identifier.
    Id(i32),
    /// By key.
    Key(Key),
}

impl Target {
    /// The one that was given.
    pub fn name(&self) -> Option<Name> {
        self.queue.or(self.key.map(Name::Key))
    }
}

/// `run`.
#[derive(Args, Debug)]
pub struct Run {
    /// Limits for the program: msgmax, msgmnb, msgmni, separated by commas
    #[arg(long, value_name = "NAME=N,...", value_delimiter = ',', value_parser = limit)]
    pub limits: Vec<Limit>,

    /// The library, in place of the one that belongs to this tool
    #[arg(long, value_name = "FILE")]
    pub library: Option<PathBuf>,

    /// The program and its arguments
    #[arg(value_name = "PROGRAM", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub program: Vec<OsString>,
}

/// `ls`.
#[derive(Args, Debug)]
pub struct Ls {
    /// Show when each queue was used and changed last
    #[arg(short, long)]
    pub time: bool,

    /// Show creators
    #[arg(short, long)]
    pub creator: bool,

    /// Show the processes that used each queue last
    #[arg(short, long)]
    pub pid: bool,

    /// The columns to show, separated by commas; `help` lists them
    #[arg(short, long, value_name = "COLUMNS", value_delimiter = ',', conflicts_with_all = ["time", "creator", "pid"])]
    pub output: Vec<String>,

    /// Print no heading
    #[arg(short, long)]
    pub noheadings: bool,

    #[command(flatten)]
    pub format: Format,
}

/// `show`.
#[derive(Args, Debug)]
pub struct Show {
    #[command(flatten)]
    pub target: Target,

    #[command(flatten)]
    pub format: Format,
}

/// Which messages.
#[derive(Args, Debug, Clone, Copy)]
#[group(multiple = false)]
pub struct Wanted {
    /// Only messages of type T; negative: of the lowest type up to -T
    #[arg(short = 't', long = "type", value_name = "T", allow_negative_numbers = true)]
    pub mtype: Option<i64>,

    /// Only messages of another type than T
    #[arg(short, long, value_name = "T", value_parser = message_type)]
    pub except: Option<MessageType>,
}

impl Wanted {
    /// As the library wants it.
    pub fn selector(self) -> Selector {
        if let Some(mtype) = self.except {
            return Selector::Except(mtype);
        }
        let mtype = self.mtype.unwrap_or(0);
        match (MessageType::new(mtype), MessageType::new(mtype.checked_neg().unwrap_or(i64::MAX))) {
            (Some(mtype), _) => Selector::Type(mtype),
            (_, Some(highest)) => Selector::UpTo(highest),
            _ => Selector::First,
        }
    }
}

/// `peek`.
#[derive(Args, Debug)]
pub struct Peek {
    #[command(flatten)]
    pub target: Target,

    #[command(flatten)]
    pub wanted: Wanted,

    /// At most N messages
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub max: u32,

    /// Begin with the message at position N; the oldest is at 0
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    pub from: u64,

    /// Show at most N bytes of each text
    #[arg(short, long, value_name = "N", default_value_t = 256)]
    pub bytes: u32,

    /// Show every text as a hex dump; otherwise only what is not text
    #[arg(short = 'x', long)]
    pub hex: bool,

    #[command(flatten)]
    pub format: Format,
}

/// `send`.
#[derive(Args, Debug)]
pub struct Send {
    #[command(flatten)]
    pub target: Target,

    /// The type, 1 or above
    #[arg(short = 't', long = "type", value_name = "T", default_value = "1", value_parser = message_type)]
    pub mtype: MessageType,

    /// The text; without it, the standard input is sent
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<OsString>,

    /// Send each line of the standard input as a message, without its line end
    #[arg(short, long, conflicts_with = "message")]
    pub lines: bool,

    /// Do not wait for room: end with status 3 if there is none
    #[arg(short = 'w', long)]
    pub nowait: bool,

    #[command(flatten)]
    pub create: Create,
}

/// Creating what is not there.
#[derive(Args, Debug, Clone, Copy)]
pub struct Create {
    /// Create the queue if its key has none
    #[arg(short, long)]
    pub create: bool,

    /// Permission bits of a queue that is created, in octal
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = mode, requires = "create")]
    pub mode: u32,
}

/// `recv`.
#[derive(Args, Debug)]
pub struct Recv {
    #[command(flatten)]
    pub target: Target,

    #[command(flatten)]
    pub wanted: Wanted,

    /// Take N messages; 0: for as long as the queue exists
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1)]
    pub count: u64,

    /// Print a line end after each text
    #[arg(short, long)]
    pub lines: bool,

    /// Do not wait for messages: end with status 3 if there is none
    #[arg(short = 'w', long)]
    pub nowait: bool,

    /// Wait for each message no longer than that, then end with status 3
    #[arg(long, value_name = "SECONDS", conflicts_with = "nowait", value_parser = seconds)]
    pub timeout: Option<std::time::Duration>,

    /// Cut texts that are longer than N bytes; otherwise there is room for every text
    #[arg(short, long, value_name = "N")]
    pub bytes: Option<u32>,

    #[command(flatten)]
    pub create: Create,

    /// Print a line of JSON for each message: type, length, text (or hex)
    #[arg(long, conflicts_with = "lines")]
    pub json: bool,
}

/// `rm`.
#[derive(Args, Debug)]
pub struct Rm {
    /// The queues' identifiers (decimal), or keys (0x...)
    #[arg(value_name = "QUEUE", value_parser = name)]
    pub queues: Vec<Name>,

    /// A queue's identifier, as with ipcrm; may be repeated
    #[arg(short = 'q', long = "queue-id", value_name = "ID")]
    pub ids: Vec<i32>,

    /// A queue's key, decimal or 0x...; may be repeated
    #[arg(short = 'k', short_alias = 'Q', long = "key", alias = "queue-key", value_name = "KEY", value_parser = key, allow_negative_numbers = true)]
    pub keys: Vec<Key>,

    /// All queues; asks first
    #[arg(short, long, conflicts_with_all = ["queues", "ids", "keys"])]
    pub all: bool,

    /// Queues that seem forgotten: nobody waits in them, no process has them open or that used them last is
    /// alive, as far as can be seen, and nothing has happened for a time (--older); asks first
    #[arg(long, conflicts_with_all = ["queues", "ids", "keys", "all"])]
    pub stale: bool,

    /// With --stale: how long nothing must have happened, such as 90s, 30m, 12h, 7d
    #[arg(long, value_name = "AGE", default_value = "1d", value_parser = age, requires = "stale")]
    pub older: std::time::Duration,

    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,

    /// Only say what would be removed
    #[arg(short = 'n', long)]
    pub dry_run: bool,
}

/// `limits`.
#[derive(Args, Debug)]
pub struct Limits {
    /// Set limits for all who share the directory: msgmax, msgmnb, msgmni, separated by commas. They act at once;
    /// msgmnb on queues made from then on. Only root and the owner of the directory may
    #[arg(long, value_name = "NAME=N,...", value_delimiter = ',', value_parser = limit)]
    pub set: Vec<Limit>,

    #[command(flatten)]
    pub format: Format,
}

/// `top`.
#[derive(Args, Debug)]
pub struct Top {
    /// Seconds between two looks
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub delay: std::time::Duration,

    /// What to sort by
    #[arg(short, long, value_name = "COLUMN", value_enum, default_value_t = Sort::Rate)]
    pub sort: Sort,

    /// Show only queues whose key, identifier, owner or processes contain TEXT
    #[arg(short, long, value_name = "TEXT")]
    pub filter: Option<String>,

    /// Print plain text instead, one table after each delay
    #[arg(short, long)]
    pub batch: bool,

    /// End after N looks; with --batch
    #[arg(short = 'n', long, value_name = "N", requires = "batch")]
    pub iterations: Option<u64>,
}

/// What `top` sorts by.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sort {
    /// Messages in and out per second
    Rate,
    /// Messages in the queue
    Depth,
    /// How full it is
    Full,
    /// How many wait
    Waiting,
    /// Identifier
    Id,
    /// Key
    Key,
}

/// `check`.
#[derive(Args, Debug)]
pub struct Check {
    /// The queues' identifiers (decimal), or keys (0x...); without any, all queues
    #[arg(value_name = "QUEUE", value_parser = name)]
    pub queues: Vec<Name>,

    /// How long to try to catch a queue that changes all the time
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    pub patience: std::time::Duration,

    #[command(flatten)]
    pub format: Format,
}

/// `doctor`.
#[derive(Args, Debug)]
pub struct Doctor {
    #[command(flatten)]
    pub format: Format,
}

/// `completions`.
#[derive(Args, Debug)]
pub struct Completions {
    /// Which shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// A limit and what it is to be.
#[derive(Clone, Debug)]
pub struct Limit {
    /// `msgmax`, `msgmnb` or `msgmni`.
    pub name: &'static str,
    /// Its value.
    pub value: u32,
}

/// The limits there are.
pub const LIMITS: [&str; 3] = ["msgmax", "msgmnb", "msgmni"];

fn limit(text: &str) -> Result<Limit, String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=N")?;
    let known = LIMITS.iter().find(|limit| limit.eq_ignore_ascii_case(name));
    let name = known.ok_or_else(|| format!("there is no limit {name}: msgmax, msgmnb, msgmni"))?;
    let value: u32 = value.parse().map_err(|_| format!("{value} is not a number"))?;
    if value > i32::MAX as u32 {
        return Err(format!("{value} is above {}", i32::MAX));
    }
    Ok(Limit { name, value })
}

fn number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok().map(i64::from),
        None => text.parse().ok(),
    }
}

/// A key: what fits in 32 bits, signed or not, as `ipcrm -Q` takes it.
fn key(text: &str) -> Result<Key, String> {
    let number = number(text).filter(|number| (i32::MIN.into()..=u32::MAX.into()).contains(number));
    let number = number.ok_or_else(|| format!("{text} is not a key"))? as i32;
    if number == 0 { Err("0 is IPC_PRIVATE: no queue has that key".to_owned()) } else { Ok(Key::new(number)) }
}

fn name(text: &str) -> Result<Name, String> {
    if text.starts_with("0x") || text.starts_with("0X") {
        return key(text).map(Name::Key);
    }
    let id = text.parse().ok().filter(|&id: &i32| id >= 0);
    id.map(Name::Id).ok_or_else(|| format!("{text} is neither an identifier nor a key (0x...)"))
}

fn message_type(text: &str) -> Result<MessageType, String> {
    let mtype = text.parse().ok().and_then(MessageType::new);
    mtype.ok_or_else(|| format!("{text} is not a type: 1 to {}", i64::MAX))
}

fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|&mode| mode <= 0o777);
    mode.ok_or_else(|| format!("{text} is not a mode: 000 to 777"))
}

fn seconds(text: &str) -> Result<std::time::Duration, String> {
    let seconds = text.parse().ok().filter(|&seconds: &f64| (0.0..1e9).contains(&seconds));
    let seconds = seconds.ok_or_else(|| format!("{text} is not a number of seconds"))?;
    Ok(std::time::Duration::from_secs_f64(seconds))
}

fn age(text: &str) -> Result<std::time::Duration, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        Some((at, 'd')) => (&text[..at], 86400),
        _ => (text, 1),
    };
    let count: u32 = digits.parse().map_err(|_| format!("{text} is not an age: 90s, 30m, 12h, 7d"))?;
    Ok(std::time::Duration::from_secs(u64::from(count) * unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_consistent() {
        Usysv::command().debug_assert();
    }

    #[test]
    fn keys_and_identifiers_are_told_apart() {
        assert!(matches!(name("12"), Ok(Name::Id(12))));
        assert!(matches!(name("0x12"), Ok(Name::Key(key)) if key.get() == 0x12));
        assert!(matches!(name("0xffffffff"), Ok(Name::Key(key)) if key.get() == -1));
        assert_eq!(key("-1").unwrap().get(), -1);
        assert_eq!(key("4294967295").unwrap().get(), -1);
        for bad in ["", "-1", "x", "0x", "0x0", "0x100000000", "2147483648"] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn types_select_as_in_msgrcv() {
        let of = |mtype| Wanted { mtype: Some(mtype), except: None }.selector();
        let mtype = |number| MessageType::new(number).unwrap();
        assert_eq!(of(0), Selector::First);
        assert_eq!(of(7), Selector::Type(mtype(7)));
        assert_eq!(of(-7), Selector::UpTo(mtype(7)));
        assert_eq!(of(i64::MIN), Selector::UpTo(mtype(i64::MAX)));
    }

    #[test]
    fn limits_and_ages_are_read() {
        assert_eq!(limit("MSGMAX=65536").unwrap().value, 65536);
        for bad in ["msgmax", "msgmax=", "msgmax=-1", "shmmax=1", "msgmni=2147483648"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
        assert_eq!(age("2h").unwrap().as_secs(), 7200);
        assert_eq!(age("0").unwrap().as_secs(), 0);
        assert!(age("soon").is_err() && age("").is_err() && age("d").is_err());
    }
}
