//! `usysv rm`: removes queues. Those that it chose by itself it shows first, and asks.

use crate::args::{Name, Rm};
use crate::output::{self, Cell, Colour, Paper, Table};
use crate::processes::{self, Mappings, Names, Process};
use crate::show::files;
use crate::{Code, Failure, Outcome, find, of_queue};
use std::io::{self, IsTerminal, Write};
use usysv::Queue;
use usysv::queue::inspect::Outline;
use usysv::semantics::{inspect, permissions};

/// A queue that was chosen, and why.
struct Choice {
    id: u32,
    outline: Outline,
    reason: String,
}

/// Removes queues.
pub fn rm(arguments: &Rm) -> Outcome {
    if arguments.all || arguments.stale {
        return chosen(arguments);
    }
    let by_id = arguments.ids.iter().map(|&id| Name::Id(id));
    let by_key = arguments.keys.iter().map(|&key| Name::Key(key));
    let names: Vec<Name> = arguments.queues.iter().copied().chain(by_id).chain(by_key).collect();
    if names.is_empty() {
        return Err(Failure::new(
            Code::Usage,
            "which queue? An identifier, --key, --all or --stale is needed",
        ));
    }
    let mut code = Code::Well;
    for name in names {
        let removed = find(name).and_then(|queue| {
            if arguments.dry_run {
                queue.status().map_err(of_queue(queue))?;
                writeln!(io::stdout(), "would remove queue {}", queue.id())?;
                return Ok(());
            }
            queue.remove().map_err(of_queue(queue))
        });
        if let Err(failure) = removed {
            eprintln!("usysv: {}", failure.message);
            code = failure.code;
        }
    }
    Ok(code)
}

/// `--all` and `--stale`.
fn chosen(arguments: &Rm) -> Outcome {
    let mut queues = inspect::list().map_err(|errno| Failure::from(io::Error::from_raw_os_error(errno.0)))?;
    let all = queues.len();
    // Others are not ours to remove.
    queues.retain(|(id, outline)| permissions::may_control(*id, &outline.status.configuration).is_ok());
    let others = all - queues.len();
    let choices: Vec<Choice> = if arguments.all {
        let choose = |(id, outline): (u32, Outline)| {
            let reason = idle(&outline);
            Choice { id, outline, reason }
        };
        queues.into_iter().map(choose).collect()
    } else {
        let mappings = Mappings::read();
        let judge = |(id, outline)| stale(id, outline, &mappings, arguments.older.as_secs());
        queues.into_iter().filter_map(judge).collect()
    };
    let mut paper = Paper::new();
    if others > 0 {
        let what = if others == 1 { "queue of another user is" } else { "queues of other users are" };
        eprintln!("usysv: {others} {what} left alone");
    }
    if choices.is_empty() {
        paper.line(if arguments.all { "no queues to remove" } else { "no stale queues" })?;
        paper.finish()?;
        return Ok(Code::Well);
    }
    print(&mut paper, &choices)?;
    paper.finish()?;
    if arguments.dry_run {
        return Ok(Code::Well);
    }
    if !arguments.yes && !confirmed(choices.len())? {
        return Err(Failure::new(Code::Wrong, "nothing was removed"));
    }
    let mut code = Code::Well;
    for choice in choices {
        let queue = Queue::from_id(choice.id.cast_signed());
        // It may have come to life since it was judged.
        if arguments.stale && inspect::outline(queue.id()).is_ok_and(|now| changed(&choice.outline, &now)) {
            eprintln!("usysv: queue {}: used meanwhile, left alone", queue.id());
            continue;
        }
        if let Err(error) = queue.remove() {
            eprintln!("usysv: {}", of_queue(queue)(error).message);
            code = Code::Wrong;
        }
    }
    Ok(code)
}

fn print(paper: &mut Paper, choices: &[Choice]) -> io::Result<()> {
    let names = Names::new();
    let mut table = Table { right: vec![false, true, false, true, false], rows: Vec::new() };
    let heading = ["KEY", "ID", "OWNER", "MSGS", "WHY"];
    table.rows.push(heading.map(|name| Cell::new(name, Colour::Bold)).to_vec());
    for Choice { id, outline, reason } in choices {
        let settings = &outline.status.configuration;
        table.rows.push(vec![
            output::key(settings).into(),
            id.to_string().into(),
            names.user(settings.uid).into(),
            outline.status.qnum.to_string().into(),
            reason.as_str().into(),
        ]);
    }
    paper.table(&table)
}

/// When something happened last.
fn last(outline: &Outline) -> u64 {
    let status = &outline.status;
    status.stime.max(status.rtime).max(status.configuration.ctime)
}

fn idle(outline: &Outline) -> String {
    format!("idle for {}", output::ago(last(outline)))
}

fn changed(before: &Outline, now: &Outline) -> bool {
    before.status != now.status || before.taken != now.taken || now.active > before.active
}

/// Whether a queue seems forgotten.
fn stale(id: u32, outline: Outline, mappings: &Mappings, older: u64) -> Option<Choice> {
    let status = &outline.status;
    let gone = |pid: u32| pid == 0 || processes::process(pid) == Process::Gone;
    let is_open = files(id).iter().any(|file| !mappings.of(file.inode).is_empty());
    let busy = outline.active > 0 || outline.waiters.iter().any(|waiter| !waiter.dead);
    let old = output::now().saturating_sub(last(&outline)) >= older;
    if busy || is_open || !old || !gone(status.lspid) || !gone(status.lrpid) {
        return None;
    }
    let users = match (status.lspid, status.lrpid) {
        (0, 0) => "never used".to_owned(),
        _ => "its last users are gone".to_owned(),
    };
    let unknown = if mappings.incomplete { ", as far as this user can see" } else { "" };
    let reason = format!("{}, {users}{unknown}", idle(&outline));
    Some(Choice { id, outline, reason })
}

fn confirmed(count: usize) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        let message = "nobody to ask: the standard input is not a terminal; --yes removes them unasked";
        return Err(Failure::new(Code::Wrong, message));
    }
    let what = if count == 1 { "this queue".to_owned() } else { format!("these {count} queues") };
    eprint!("Remove {what}, with all messages? [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes"))
}
