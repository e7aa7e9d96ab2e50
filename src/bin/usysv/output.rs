//! How things are printed: tables, colours, JSON, sizes, ages.
//!
//! What comes from a queue or a process, and is not ours, is made [`printable`] first: no text of somebody else's
//! moves the cursor of the reader's terminal.

use crate::processes::{self, Names, Process};
use chrono::{DateTime, Local};
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};
use usysv::Key;
use usysv::queue::inspect::{Outline, Waiter, Wants};
use usysv::queue::{self, Configuration};

/// A colour, where colours are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Colour {
    Plain,
    Bold,
    Dim,
    Green,
    Yellow,
    Red,
}

impl Colour {
    fn code(self) -> &'static str {
        match self {
            Colour::Plain => "0",
            Colour::Bold => "1",
            Colour::Dim => "2",
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Red => "31",
        }
    }

    /// The colour of something that is so full.
    pub fn of_fullness(fraction: f64) -> Colour {
        match fraction {
            f if f >= 0.9 => Colour::Red,
            f if f >= 0.6 => Colour::Yellow,
            _ => Colour::Green,
        }
    }
}

/// Where output goes: the standard output, with colours if that is a terminal and nobody minds.
pub struct Paper {
    out: io::BufWriter<io::StdoutLock<'static>>,
    colours: bool,
}

impl Paper {
    /// The standard output.
    pub fn new() -> Paper {
        let minds = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let out = io::stdout().lock();
        let colours = out.is_terminal() && !minds && !dumb;
        Paper { out: io::BufWriter::new(out), colours }
    }

    /// Text in a colour.
    pub fn paint(&self, colour: Colour, text: &str) -> String {
        if self.colours && colour != Colour::Plain && !text.is_empty() {
            format!("\x1b[{}m{text}\x1b[0m", colour.code())
        } else {
            text.to_owned()
        }
    }

    /// Prints a line.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// Prints a value as JSON.
    pub fn json(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.out, "{value:#}")
    }

    /// Prints a table: the first row may be headings.
    pub fn table(&mut self, table: &Table) -> io::Result<()> {
        let columns = table.right.len();
        let width = |column: usize| {
            let cells = table.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &table.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let missing = widths[column].saturating_sub(cell.text.chars().count());
                let painted = self.paint(cell.colour, &cell.text);
                let last = column + 1 == columns;
                match (table.right[column], last) {
                    (true, _) => line.push_str(&format!("{}{painted}", " ".repeat(missing))),
                    (false, true) => line.push_str(&painted),
                    (false, false) => line.push_str(&format!("{painted}{}", " ".repeat(missing))),
                }
                if !last {
                    line.push_str("  ");
                }
            }
            writeln!(self.out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    /// Ends: what was printed is written out.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A cell of a table.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    colour: Colour,
}

impl Cell {
    /// A cell in a colour.
    pub fn new(text: impl Into<String>, colour: Colour) -> Cell {
        Cell { text: text.into(), colour }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell::new(text, Colour::Plain)
    }
}

/// A table.
#[derive(Default)]
pub struct Table {
    /// Which columns are aligned to the right.
    pub right: Vec<bool>,
    /// Its rows.
    pub rows: Vec<Vec<Cell>>,
}

/// Text of somebody else's, on one line and without control characters.
pub fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A number of bytes, short: 512, 16.0K, 1.5M.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["", "K", "M", "G", "T"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 {
        format!("{value:.0}{}", UNITS[unit])
    } else {
        format!("{value:.1}{}", UNITS[unit])
    }
}

/// Seconds since 1970, now.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// How long ago that was, short: 5s, 12m, 3h, 9d.
pub fn ago(seconds: u64) -> String {
    if seconds == 0 { "never".to_owned() } else { duration(now().saturating_sub(seconds)) }
}

/// A duration, short.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

fn local(seconds: u64) -> Option<DateTime<Local>> {
    DateTime::from_timestamp(seconds.try_into().ok()?, 0).map(|at| at.with_timezone(&Local))
}

/// A point in time, as people write it.
pub fn time(seconds: u64) -> String {
    match local(seconds) {
        Some(at) if seconds != 0 => at.format("%Y-%m-%d %H:%M:%S").to_string(),
        _ => "never".to_owned(),
    }
}

/// A point in time, for programs: seconds since 1970, or null.
pub fn json_time(seconds: u64) -> Value {
    if seconds == 0 { Value::Null } else { json!(seconds) }
}

/// A queue's permission bits, as ipcs prints them.
pub fn perms(mode: u32) -> String {
    format!("{mode:03o}")
}

/// How full a queue is: by bytes, or by messages, whichever is nearer to the end.
pub fn fullness(status: &queue::Status) -> f64 {
    let qbytes = status.configuration.qbytes;
    if qbytes == 0 {
        return 1.0;
    }
    (status.cbytes.max(status.qnum.into()) as f64 / qbytes as f64).min(1.0)
}

/// A bar of some width.
pub fn bar(fraction: f64, width: usize) -> String {
    const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths = (fraction.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    // What is not empty does not look empty.
    let eighths = if fraction > 0.0 { eighths.max(1) } else { 0 };
    let (whole, rest) = (eighths / 8, eighths % 8);
    let mut bar = "█".repeat(whole);
    if rest > 0 {
        bar.push(EIGHTHS[rest - 1]);
    }
    let length = bar.chars().count();
    bar.push_str(&"·".repeat(width.saturating_sub(length)));
    bar
}

/// A bar with its number.
pub fn full(fraction: f64, width: usize) -> String {
    format!("{} {:>3.0}%", bar(fraction, width), fraction * 100.0)
}

/// A process id with its name: `4711 server`, `4711 (gone)`, `-`.
pub fn pid(pid: u32) -> String {
    match (pid, processes::known_process(pid)) {
        (0, _) => "-".to_owned(),
        (pid, Process::Alive(name)) => format!("{pid} {name}"),
        (pid, Process::Gone) => format!("{pid} (gone)"),
    }
}

/// The same for programs: null, or `{"pid", "name"}` with null for a process that is gone.
pub fn json_pid(pid: u32) -> Value {
    match (pid, processes::known_process(pid)) {
        (0, _) => Value::Null,
        (pid, Process::Alive(name)) => json!({ "pid": pid, "name": name }),
        (pid, Process::Gone) => json!({ "pid": pid, "name": null }),
    }
}

/// How many wait: `2 receivers`, `1 sender`, `-`.
pub fn waiting(status: &queue::Status) -> String {
    let some = |count: u32, what: &str| match count {
        0 => None,
        1 => Some(format!("1 {what}")),
        count => Some(format!("{count} {what}s")),
    };
    let both = [some(status.receivers, "receiver"), some(status.senders, "sender")];
    let both: Vec<String> = both.into_iter().flatten().collect();
    if both.is_empty() { "-".to_owned() } else { both.join(", ") }
}

/// What a waiter waits for, in words.
pub fn wants(wants: Wants) -> String {
    match wants {
        Wants::Room(bytes) => format!("room for {bytes} bytes"),
        Wants::Message { selector, size, truncate } => {
            let which = match selector {
                queue::Selector::Any => "any message".to_owned(),
                queue::Selector::Type(mtype) => format!("a message of type {mtype}"),
                queue::Selector::Except(mtype) => format!("a message of another type than {mtype}"),
                queue::Selector::AtMost(highest) => format!("a message of a type up to {highest}"),
            };
            let cut = if truncate { ", cut to fit" } else { "" };
            format!("{which}, room for {size} bytes{cut}")
        }
    }
}

/// Who waits, as a process: `4711 server`, or a bare id of another pid namespace.
pub fn who(waiter: &Waiter) -> String {
    if waiter.dead {
        return "one that died".to_owned();
    }
    if waiter.pid_namespace != 0 && waiter.pid_namespace != processes::pid_namespace() {
        return format!("{} in another pid namespace", waiter.thread);
    }
    let process = processes::process_of(waiter.thread);
    let thread = if process == waiter.thread { String::new() } else { format!(", thread {}", waiter.thread) };
    format!("{}{thread}", pid(process))
}

/// A waiter for programs.
pub fn json_waiter(waiter: &Waiter) -> Value {
    let ours = waiter.pid_namespace == 0 || waiter.pid_namespace == processes::pid_namespace();
    let process =
        if ours && !waiter.dead { json_pid(processes::process_of(waiter.thread)) } else { Value::Null };
    let mut value = json!({
        "thread": waiter.thread,
        "pid_namespace": waiter.pid_namespace,
        "process": process,
        "dead": waiter.dead,
    });
    match waiter.wants {
        Wants::Room(bytes) => value["bytes"] = json!(bytes),
        Wants::Message { selector, size, truncate } => {
            let (msgtyp, except) = match selector {
                queue::Selector::Any => (0, false),
                queue::Selector::Type(mtype) => (mtype, false),
                queue::Selector::Except(mtype) => (mtype, true),
                queue::Selector::AtMost(highest) => (highest.saturating_neg(), false),
            };
            value["msgtyp"] = json!(msgtyp);
            value["except"] = json!(except);
            value["size"] = json!(size);
            value["truncate"] = json!(truncate);
        }
    }
    value
}

/// A key, as ipcs prints it.
pub fn key(settings: &Configuration) -> String {
    Key::new(settings.key).to_string()
}

/// A queue for programs, as `ls` and `show` tell it.
pub fn json_queue(id: u32, outline: &Outline, names: &Names) -> Value {
    let (status, settings) = (&outline.status, &outline.status.configuration);
    json!({
        "key": key(settings),
        "id": id,
        "owner": names.user(settings.uid),
        "uid": settings.uid,
        "group": names.group(settings.gid),
        "gid": settings.gid,
        "creator": names.user(settings.cuid),
        "cuid": settings.cuid,
        "cgid": settings.cgid,
        "perms": perms(settings.mode),
        "bytes": status.cbytes,
        "messages": status.qnum,
        "qbytes": settings.qbytes,
        "full": (fullness(status) * 1000.0).round() / 1000.0,
        "receivers": status.receivers,
        "senders": status.senders,
        "last_sender": json_pid(status.lspid),
        "last_receiver": json_pid(status.lrpid),
        "sent": json_time(status.stime),
        "received": json_time(status.rtime),
        "changed": json_time(settings.ctime),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_short() {
        let sizes = [0, 1023, 1024, 16384, 150 << 10, 1 << 30, u64::MAX].map(size);
        assert_eq!(sizes, ["0", "1023", "1.0K", "16.0K", "150K", "1.0G", "16777216T"]);
        assert_eq!([5, 600, 7200, 864_000].map(duration), ["5s", "10m", "2h", "10d"]);
    }

    #[test]
    fn bars_tell_empty_from_nearly_empty() {
        assert_eq!(bar(0.0, 4), "····");
        assert_eq!(bar(0.001, 4), "▏···");
        assert_eq!(bar(0.5, 4), "██··");
        assert_eq!(bar(1.0, 4), "████");
        assert_eq!(bar(7.0, 4), "████");
    }

    #[test]
    fn foreign_text_moves_no_cursor() {
        assert_eq!(printable(b"a\x1b[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!(printable("grüß".as_bytes()), "grüß");
    }
}
