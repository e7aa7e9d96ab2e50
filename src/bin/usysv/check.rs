//! `usysv check`: the invariants of queues in use. It looks at one consistent state of a queue, tries again when the
//! queue changes under its eyes, and repairs nothing: what the dead have left is counted and left to the next call.

use crate::args::{Check, Name};
use crate::output::{self, Colour, Paper};
use crate::show::missing;
use crate::{Code, Failure, Outcome, find, of_queue};
use serde_json::{Value, json};
use std::io;
use std::thread;
use std::time::{Duration, Instant};
use usysv::os::errno::Errno;
use usysv::queue::check::Finding;
use usysv::semantics::inspect;

/// What came of checking a queue.
enum Verdict {
    Found(Finding),
    /// This user may not look.
    Denied,
    /// It is gone.
    Gone,
}

fn judge(id: i32, patience: Duration) -> Result<Verdict, Errno> {
    let deadline = Instant::now() + patience;
    loop {
        match inspect::check(id) {
            Ok(Finding::Busy) if Instant::now() < deadline => thread::sleep(Duration::from_millis(1)),
            Ok(finding) => return Ok(Verdict::Found(finding)),
            Err(Errno::EACCES) => return Ok(Verdict::Denied),
            Err(Errno::EINVAL | Errno::EIDRM) => return Ok(Verdict::Gone),
            Err(errno) => return Err(errno),
        }
    }
}

/// Checks queues.
pub fn check(arguments: &Check) -> Outcome {
    let named = !arguments.queues.is_empty();
    let ids: Vec<i32> = if named {
        let find = |&name: &Name| find(name).map(|queue| queue.id());
        arguments.queues.iter().map(find).collect::<Result<_, Failure>>()?
    } else {
        let queues = inspect::list().map_err(|errno| Failure::from(io::Error::from_raw_os_error(errno.0)))?;
        queues.into_iter().map(|(id, _)| id.cast_signed()).collect()
    };
    let (mut broken, mut busy, mut unseen) = (0, 0, 0);
    let mut paper = Paper::new();
    let mut results = Vec::new();
    for &id in &ids {
        let queue = usysv::Queue::from_id(id);
        let verdict = judge(id, arguments.patience).map_err(|errno| of_queue(queue)(errno.into()))?;
        let notes = inspect::outline(id).map(|outline| notes(&outline)).unwrap_or_default();
        let (word, colour, text) = match verdict {
            Verdict::Gone if named => return Err(of_queue(queue)(missing(Errno::EINVAL))),
            Verdict::Gone => continue,
            Verdict::Denied => {
                unseen += 1;
                ("unseen", Colour::Dim, "not checked: its mode denies reading".to_owned())
            }
            Verdict::Found(Finding::Sound(messages)) => {
                let s = if messages == 1 { "" } else { "s" };
                ("sound", Colour::Green, format!("sound, {messages} message{s}"))
            }
            Verdict::Found(Finding::Busy) => {
                busy += 1;
                ("busy", Colour::Yellow, "not checked: it changes too fast".to_owned())
            }
            Verdict::Found(Finding::Broken(what)) => {
                broken += 1;
                ("broken", Colour::Red, format!("BROKEN: {what}"))
            }
        };
        if arguments.format.json {
            results.push(json!({ "id": id, "finding": word, "text": text, "notes": notes }));
        } else {
            let painted = paper.paint(colour, &text);
            paper.line(&format!("queue {id}: {painted}"))?;
            for note in &notes {
                paper.line(&format!("    {note}"))?;
            }
        }
    }
    if arguments.format.json {
        let results: Value = results.into();
        paper.json(&json!({ "queues": results, "broken": broken, "busy": busy, "unseen": unseen }))?;
    } else if ids.is_empty() {
        paper.line(&format!("no queues in {}", usysv::directory().display()))?;
    } else if broken > 0 {
        let remedy = "A broken queue answers EIDRM to its users. Save what `usysv peek` still shows, remove it with \
            `usysv rm`, and report it: this should not happen.";
        paper.line(remedy)?;
    }
    paper.finish()?;
    Ok(match (broken, busy, unseen) {
        (1.., _, _) => Code::Wrong,
        (_, 1.., _) => Code::Nothing,
        (_, _, 1..) if named => Code::Wrong,
        _ => Code::Well,
    })
}

/// What is in order, and good to know.
fn notes(outline: &usysv::queue::inspect::Outline) -> Vec<String> {
    let mut notes = Vec::new();
    if outline.dead > 0 {
        notes.push(format!("{} participants died; the next call puts in order what they left", outline.dead));
    }
    if outline.handed > 0 {
        notes.push(format!("{} messages are with receivers that have not taken them yet", outline.handed));
    }
    if output::fullness(&outline.status) >= 1.0 {
        notes.push("the queue is full".to_owned());
    }
    notes
}
