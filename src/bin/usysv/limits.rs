//! `usysv limits`: what is in force, and where it comes from; and setting it for all who share the directory.

use crate::args::{self, Limits};
use crate::output::{Cell, Colour, Paper, Table};
use crate::{Code, Failure, Outcome};
use serde_json::{Value, json};
use usysv::namespace::limits::{self as namespace, Limit};
use usysv::os::errno::Errno;
use usysv::semantics::limits::{self, Origin};

const MEANINGS: [(&str, &str); 3] = [
    ("msgmax", "longest text of a message, in bytes"),
    ("msgmnb", "capacity of a new queue, in bytes of text"),
    ("msgmni", "how many queues there may be"),
];

/// Where a limit comes from, in words.
pub fn origin(name: &str, origin: Origin) -> String {
    match origin {
        Origin::Namespace => format!("{}/usysv.{name}", usysv::directory().display()),
        Origin::Environment(variable) => format!("environment: {}", variable.to_string_lossy()),
        Origin::Kernel(file) => file.to_string_lossy().into_owned(),
        Origin::Default => "default".to_owned(),
    }
}

/// Sets a limit of the directory.
fn set(limit: &args::Limit) -> Result<(), Failure> {
    let all = [Limit::Msgmax, Limit::Msgmnb, Limit::Msgmni];
    let Some(which) = all.into_iter().find(|which| which.name() == limit.name) else { return Ok(()) };
    namespace::set(which, limit.value.into()).map_err(|errno| {
        let directory = usysv::directory();
        let why = match errno {
            Errno::EPERM => "only root and the owner of the directory set limits for all".to_owned(),
            Errno::EINVAL => format!("{} is above {}", limit.value, which.largest()),
            errno => std::io::Error::from_raw_os_error(errno.0).to_string(),
        };
        Failure::new(Code::Wrong, format!("{}: {}: {why}", directory.display(), limit.name))
    })
}

/// Sets the limits, if asked to, and shows them.
pub fn limits(arguments: &Limits) -> Outcome {
    arguments.set.iter().try_for_each(set)?;
    let mut paper = Paper::new();
    let effective = limits::effective();
    if arguments.format.json {
        let limit = |limit: &limits::Effective| {
            let origin = origin(limit.name, limit.origin);
            (limit.name.to_owned(), json!({ "value": limit.value, "origin": origin }))
        };
        paper.json(&Value::Object(effective.iter().map(limit).collect()))?;
    } else {
        let mut table = Table { right: vec![false, true, false, false], rows: Vec::new() };
        let heading = ["LIMIT", "VALUE", "FROM", "MEANING"];
        table.rows.push(heading.map(|name| Cell::new(name, Colour::Bold)).to_vec());
        for limit in effective {
            let meaning = MEANINGS.iter().find(|(name, _)| *name == limit.name).map_or("", |(_, text)| text);
            table.rows.push(vec![
                limit.name.into(),
                limit.value.to_string().into(),
                origin(limit.name, limit.origin).into(),
                meaning.into(),
            ]);
        }
        paper.table(&table)?;
    }
    paper.finish()?;
    Ok(Code::Well)
}
