//! `usysv show`: everything about one queue.

use crate::args::Show;
use crate::output::{self, Cell, Colour, Paper, Table};
use crate::processes::{Mappings, Names};
use crate::{Code, Outcome, find, of_queue};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use usysv::Error;
use usysv::namespace;
use usysv::os::errno::Errno;
use usysv::queue::inspect::{Outline, TypeCount, Wants};
use usysv::semantics::inspect;
use usysv::shm::layout;

/// A file of a queue, and the memory it takes.
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes of memory, or of disk.
    pub allocated: u64,
    /// Which file it is.
    pub inode: (u64, u64),
}

/// The files of a queue: control file, body; those that this user may look up.
pub fn files(id: u32) -> Vec<File> {
    let paths = [namespace::queue_path(namespace::index_of(id)), namespace::body_path(id)];
    let paths = paths.into_iter().flatten().map(|path| Path::new(OsStr::from_bytes(path.bytes())).to_owned());
    let look = |path: PathBuf| {
        let there = std::fs::symlink_metadata(&path).ok()?;
        Some(File { path, allocated: there.blocks() * 512, inode: (there.dev(), there.ino()) })
    };
    paths.filter_map(look).collect()
}

/// What is known of the messages' types.
enum Types {
    Known(Vec<TypeCount>),
    /// The queue changes too fast.
    Busy,
    /// This user may not see them.
    Denied,
}

fn types(id: i32) -> Result<Types, Error> {
    match inspect::types(id) {
        Ok(Some(types)) => Ok(Types::Known(types)),
        Ok(None) => Ok(Types::Busy),
        Err(Errno::EACCES) => Ok(Types::Denied),
        Err(errno) => Err(errno.into()),
    }
}

/// When the oldest message was sent, as far as that can be told: messages carry no time stamp. It was sent no later
/// than the last, and no earlier than the queue was made or changed, or than it was last known to be empty.
fn oldest(outline: &Outline) -> Option<u64> {
    (outline.status.qnum > 0).then_some(outline.status.stime)
}

/// Shows a queue.
pub fn show(arguments: &Show) -> Outcome {
    let Some(name) = arguments.target.name() else { return Ok(Code::Usage) };
    let queue = find(name)?;
    let failed = of_queue(queue);
    let outline = inspect::outline(queue.id()).map_err(|errno| failed(missing(errno)))?;
    let types = types(queue.id()).map_err(&failed)?;
    let id = queue.id().cast_unsigned();
    let files = files(id);
    let mappings = Mappings::read();
    let users = files.first().map_or(&[][..], |control| mappings.of(control.inode));
    let names = Names::new();
    let mut paper = Paper::new();
    if arguments.format.json {
        paper.json(&as_json(id, &outline, &types, &files, users, &mappings, &names))?;
    } else {
        print(&mut paper, id, &outline, &types, &files, users, &mappings, &names)?;
    }
    paper.finish()?;
    Ok(Code::Well)
}

/// The error for an identifier that has no queue.
pub fn missing(errno: Errno) -> Error {
    // ENOENT is what the library says of a queue that is not there.
    if errno == Errno::EINVAL { Errno::ENOENT.into() } else { errno.into() }
}

fn as_json(
    id: u32,
    outline: &Outline,
    types: &Types,
    files: &[File],
    users: &[u32],
    mappings: &Mappings,
    names: &Names,
) -> Value {
    let mut value = output::json_queue(id, outline, names);
    let waiters = |sending: bool| -> Vec<Value> {
        let of = |waiter: &&_| matches!(waiter_wants(waiter), Wants::Room(_)) == sending;
        outline.waiters.iter().filter(of).map(output::json_waiter).collect()
    };
    let count = |count: &TypeCount| json!({ "type": count.mtype, "messages": count.messages, "bytes": count.bytes, "first": count.first });
    value["oldest_sent_at_latest"] = oldest(outline).map_or(Value::Null, output::json_time);
    value["types"] = match types {
        Types::Known(types) => types.iter().map(count).collect(),
        Types::Busy | Types::Denied => Value::Null,
    };
    value["types_missing"] = match types {
        Types::Known(_) => Value::Null,
        Types::Busy => json!("busy"),
        Types::Denied => json!("denied"),
    };
    value["waiting_receivers"] = waiters(false).into();
    value["waiting_senders"] = waiters(true).into();
    value["taken"] = json!(outline.taken);
    value["handed"] = json!(outline.handed);
    value["participants"] =
        json!({ "room": outline.participants, "active": outline.active, "dead": outline.dead });
    let memory = |granules: u32| u64::from(granules) * layout::GRANULE;
    value["memory"] = json!({ "used": memory(outline.granules), "reserved": memory(outline.reserved) });
    let file = |file: &File| json!({ "path": file.path.to_string_lossy(), "allocated": file.allocated });
    value["files"] = files.iter().map(file).collect();
    value["open_in"] = users.iter().map(|&pid| output::json_pid(pid)).collect();
    value["open_in_complete"] = json!(!mappings.incomplete);
    value
}

fn waiter_wants(waiter: &usysv::queue::inspect::Waiter) -> Wants {
    waiter.wants
}

#[allow(clippy::too_many_arguments, reason = "all there is to know")]
fn print(
    paper: &mut Paper,
    id: u32,
    outline: &Outline,
    types: &Types,
    files: &[File],
    users: &[u32],
    mappings: &Mappings,
    names: &Names,
) -> std::io::Result<()> {
    let (status, settings) = (&outline.status, &outline.status.configuration);
    let mut facts = Table { right: vec![false; 2], rows: Vec::new() };
    let mut fact = |name: &str, text: String, colour: Colour| {
        facts.rows.push(vec![Cell::new(name, Colour::Bold), Cell::new(text, colour)]);
    };
    let fraction = output::fullness(status);
    let times = |seconds: u64| match seconds {
        0 => "never".to_owned(),
        seconds => format!("{}, {} ago", output::time(seconds), output::ago(seconds)),
    };
    let used = |pid: u32, when: u64| match pid {
        0 => "never".to_owned(),
        pid => format!("{}, by {}", times(when), output::pid(pid)),
    };
    fact("id", id.to_string(), Colour::Plain);
    let key = if settings.key == 0 { " (private)" } else { "" };
    fact("key", format!("{}{key}", output::key(settings)), Colour::Plain);
    fact("owner", format!("{}:{}", names.user(settings.uid), names.group(settings.gid)), Colour::Plain);
    fact("creator", format!("{}:{}", names.user(settings.cuid), names.group(settings.cgid)), Colour::Plain);
    fact("perms", output::perms(settings.mode), Colour::Plain);
    fact("full", output::full(fraction, 20), Colour::of_fullness(fraction));
    fact("bytes", format!("{} of {}", status.cbytes, settings.qbytes), Colour::Plain);
    fact("messages", format!("{} of {}", status.qnum, settings.qbytes), Colour::Plain);
    if let Some(sent) = oldest(outline) {
        // There is no time in a message: only a bound can be told.
        let age = format!("sent {} ago, or earlier (messages carry no time)", output::ago(sent));
        fact("oldest message", age, Colour::Plain);
    }
    fact("last sent", used(status.lspid, status.stime), Colour::Plain);
    fact("last received", used(status.lrpid, status.rtime), Colour::Plain);
    fact("changed", times(settings.ctime), Colour::Plain);
    let colour = if status.senders > 0 { Colour::Yellow } else { Colour::Plain };
    fact("waiting", output::waiting(status), colour);
    let some = |users: &[u32]| {
        let mut list: Vec<String> = users.iter().map(|&pid| output::pid(pid)).collect();
        if mappings.incomplete {
            list.push("perhaps others, of other users".to_owned());
        }
        if list.is_empty() { "-".to_owned() } else { list.join(", ") }
    };
    fact("open in", some(users), Colour::Plain);
    let dead = match outline.dead {
        0 => String::new(),
        dead => format!(", {dead} died and will be put in order by the next call"),
    };
    let active = outline.active;
    fact(
        "participants",
        format!("{active} in a call, room for {}{dead}", outline.participants),
        Colour::Plain,
    );
    let granules = |granules: u32| output::size(u64::from(granules) * layout::GRANULE);
    let memory = format!("{} used, {} reserved", granules(outline.granules), granules(outline.reserved));
    fact("memory", memory, Colour::Plain);
    for file in files {
        fact("file", format!("{} ({})", file.path.display(), output::size(file.allocated)), Colour::Plain);
    }
    paper.table(&facts)?;
    paper.line("")?;
    match types {
        Types::Known(types) if types.is_empty() => paper.line("no messages")?,
        Types::Known(types) => {
            let mut table = Table { right: vec![true; 4], rows: Vec::new() };
            let heading = ["TYPE", "MSGS", "BYTES", "FIRST AT"];
            table.rows.push(heading.map(|name| Cell::new(name, Colour::Bold)).to_vec());
            for count in types {
                let row = [u64::from(count.messages), count.bytes, count.first].map(|n| n.to_string().into());
                table.rows.push([Cell::from(count.mtype.to_string())].into_iter().chain(row).collect());
            }
            paper.table(&table)?;
        }
        Types::Busy => paper.line("types: not counted, the queue changes too fast")?,
        Types::Denied => paper.line("types: not shown, the queue's mode denies reading")?,
    }
    if !outline.waiters.is_empty() {
        paper.line("")?;
        let mut table = Table { right: vec![false; 3], rows: Vec::new() };
        let heading = ["WAITING", "PROCESS", "FOR"];
        table.rows.push(heading.map(|name| Cell::new(name, Colour::Bold)).to_vec());
        for waiter in &outline.waiters {
            let role = if matches!(waiter.wants, Wants::Room(_)) { "to send" } else { "to receive" };
            table.rows.push(vec![
                role.into(),
                output::who(waiter).into(),
                output::wants(waiter.wants).into(),
            ]);
        }
        paper.table(&table)?;
    }
    Ok(())
}
