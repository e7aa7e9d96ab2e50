//! `usysv ls`: the queues, for any user, as ipcs(1) lists the kernel's.

use crate::args::Ls;
use crate::output::{self, Cell, Colour, Paper, Table};
use crate::processes::Names;
use crate::{Code, Failure, Outcome};
use serde_json::{Value, json};
use usysv::queue::inspect::Outline;
use usysv::semantics::inspect;

/// A column: its name, whether it is aligned to the right, and what it says.
struct Column {
    name: &'static str,
    /// What lsipc(1) calls it, if that is something else.
    also: &'static str,
    right: bool,
    meaning: &'static str,
    cell: fn(u32, &Outline, &Names) -> Cell,
}

macro_rules! columns {
    ($($name:literal $also:literal $right:literal $meaning:literal $cell:expr;)*) => {
        &[$(Column { name: $name, also: $also, right: $right, meaning: $meaning, cell: $cell }),*]
    };
}

/// All columns.
const COLUMNS: &[Column] = columns! {
    "KEY" "" false "key" |_, queue, _| output::key(settings(queue)).into();
    "ID" "" true "identifier" |id, _, _| id.to_string().into();
    "OWNER" "USER" false "owner" |_, queue, names| names.user(settings(queue).uid).into();
    "UID" "" true "owner's number" |_, queue, _| settings(queue).uid.to_string().into();
    "GROUP" "" false "owner's group" |_, queue, names| names.group(settings(queue).gid).into();
    "GID" "" true "its number" |_, queue, _| settings(queue).gid.to_string().into();
    "CREATOR" "CUSER" false "creator" |_, queue, names| names.user(settings(queue).cuid).into();
    "CUID" "" true "creator's number" |_, queue, _| settings(queue).cuid.to_string().into();
    "CGROUP" "" false "creator's group" |_, queue, names| names.group(settings(queue).cgid).into();
    "CGID" "" true "its number" |_, queue, _| settings(queue).cgid.to_string().into();
    "PERMS" "" true "permission bits" |_, queue, _| output::perms(settings(queue).mode).into();
    "BYTES" "USEDBYTES" true "bytes of text in the queue" |_, queue, _| queue.status.cbytes.to_string().into();
    "MSGS" "MESSAGES" true "messages in the queue" |_, queue, _| queue.status.qnum.to_string().into();
    "QBYTES" "SIZE" true "bytes of text it may hold" |_, queue, _| settings(queue).qbytes.to_string().into();
    "FULL" "" false "how full it is" |_, queue, _| full(queue);
    "RECEIVERS" "" true "receivers that wait" |_, queue, _| queue.status.receivers.to_string().into();
    "SENDERS" "" true "senders that wait" |_, queue, _| queue.status.senders.to_string().into();
    "WAITING" "" false "both, in words" |_, queue, _| waiting(queue);
    "LSPID" "" false "process that sent last" |_, queue, _| output::pid(queue.status.lspid).into();
    "LRPID" "" false "process that received last" |_, queue, _| output::pid(queue.status.lrpid).into();
    "SENT" "SEND" false "when it was sent to last" |_, queue, _| output::time(queue.status.stime).into();
    "RECEIVED" "RECV" false "when it was received from last" |_, queue, _| output::time(queue.status.rtime).into();
    "CHANGED" "CTIME" false "when it was made or changed last" |_, queue, _| output::time(settings(queue).ctime).into();
};

fn settings(outline: &Outline) -> &usysv::queue::Configuration {
    &outline.status.configuration
}

fn full(queue: &Outline) -> Cell {
    let fraction = output::fullness(&queue.status);
    Cell::new(output::full(fraction, 10), Colour::of_fullness(fraction))
}

fn waiting(queue: &Outline) -> Cell {
    let colour = if queue.status.senders > 0 { Colour::Yellow } else { Colour::Plain };
    Cell::new(output::waiting(&queue.status), colour)
}

fn chosen(arguments: &Ls) -> Result<Vec<&'static Column>, Failure> {
    let ordinary = ["KEY", "ID", "OWNER", "PERMS", "BYTES", "MSGS", "FULL", "WAITING", "LSPID", "LRPID"];
    let mut names: Vec<&str> = vec!["KEY", "ID", "OWNER", "PERMS"];
    for (wanted, more) in [
        (arguments.creator, &["CREATOR", "CGROUP", "OWNER", "GROUP"][..]),
        (arguments.pid, &["LSPID", "LRPID"]),
        (arguments.time, &["SENT", "RECEIVED", "CHANGED"]),
    ] {
        if wanted {
            names.extend(more.iter().filter(|name| **name != "OWNER"));
        }
    }
    if !arguments.output.is_empty() {
        names = arguments.output.iter().map(String::as_str).collect();
    } else if names.len() == 4 {
        names = ordinary.to_vec();
    }
    let find = |name: &str| {
        let is = |column: &&Column| {
            column.name.eq_ignore_ascii_case(name)
                || !column.also.is_empty() && column.also.eq_ignore_ascii_case(name)
        };
        let column = COLUMNS.iter().find(is);
        column.ok_or_else(|| {
            Failure::new(Code::Usage, format!("there is no column {name}; `usysv ls -o help` lists them"))
        })
    };
    names.into_iter().map(find).collect()
}

fn list_columns() -> Outcome {
    let mut table = Table { right: vec![false; 3], rows: Vec::new() };
    for column in COLUMNS {
        let also = if column.also.is_empty() { String::new() } else { format!("(or {})", column.also) };
        table.rows.push(vec![column.name.into(), column.meaning.into(), also.into()]);
    }
    let mut paper = Paper::new();
    paper.table(&table)?;
    paper.finish()?;
    Ok(Code::Well)
}

/// Lists the queues.
pub fn ls(arguments: &Ls) -> Outcome {
    if arguments.output.first().is_some_and(|name| name == "help") {
        return list_columns();
    }
    let columns = chosen(arguments)?;
    let queues = inspect::list().map_err(|errno| {
        let directory = usysv::directory();
        let error = std::io::Error::from_raw_os_error(errno.0);
        Failure::new(Code::Wrong, format!("{}: {error}", directory.display()))
    })?;
    let names = Names::new();
    let mut paper = Paper::new();
    if arguments.format.json {
        let queues: Vec<Value> =
            queues.iter().map(|(id, outline)| output::json_queue(*id, outline, &names)).collect();
        paper.json(&json!({ "directory": usysv::directory().to_string_lossy(), "queues": queues }))?;
    } else {
        let mut table =
            Table { right: columns.iter().map(|column| column.right).collect(), rows: Vec::new() };
        if !arguments.noheadings {
            table.rows.push(columns.iter().map(|column| Cell::new(column.name, Colour::Bold)).collect());
        }
        for (id, outline) in &queues {
            table.rows.push(columns.iter().map(|column| (column.cell)(*id, outline, &names)).collect());
        }
        paper.table(&table)?;
    }
    paper.finish()?;
    Ok(Code::Well)
}
