//! `usysv`: the command-line tool. It uses the queues as programs do, through the crate's own interface, and looks
//! into them through [`usysv::semantics::inspect`].
//!
//! Output goes to the standard output, and what went wrong to the standard error, a line that begins with `usysv:`.
//! A reader that goes away (`usysv ls | head -1`) is no error. Exit codes are in [`Code`] and in `--help`.

#![forbid(unsafe_code)]

mod args;
mod check;
mod completions;
mod doctor;
mod limits;
mod ls;
mod output;
mod peek;
mod processes;
mod program;
mod rm;
mod run;
mod show;
mod top;
mod transfer;

use args::{Command, Name, Usysv};
use clap::Parser;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use usysv::{ErrorKind, Queue};

/// How the tool ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Code {
    /// Done, and all is well.
    Well = 0,
    /// It failed, or something is wrong.
    Wrong = 1,
    /// The command was not understood: what clap answers with, too.
    Usage = 2,
    /// Nothing to take, no room, or the queue changed too fast.
    Nothing = 3,
    /// `run`: the tool itself failed.
    RunFailed = 125,
    /// `run`: the program cannot be run on these queues.
    CannotRun = 126,
    /// `run`: there is no such program.
    NoProgram = 127,
}

/// A command that cannot be carried out, and how the tool ends.
struct Failure {
    code: Code,
    message: String,
}

impl Failure {
    fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }
}

impl From<usysv::Error> for Failure {
    fn from(error: usysv::Error) -> Failure {
        let code = match error.kind() {
            ErrorKind::Full | ErrorKind::NoMessage => Code::Nothing,
            _ => Code::Wrong,
        };
        Failure::new(code, error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        // Nobody reads on: that is how pipes end.
        let code = if error.kind() == io::ErrorKind::BrokenPipe { Code::Well } else { Code::Wrong };
        let message = if code == Code::Well { String::new() } else { error.to_string() };
        Failure::new(code, message)
    }
}

type Outcome = Result<Code, Failure>;

/// The queue of a name.
fn find(name: Name) -> Result<Queue, Failure> {
    match name {
        Name::Id(id) => Ok(Queue::from_id(id)),
        Name::Key(key) => Queue::open(key).map_err(|error| {
            let failure = Failure::from(error);
            Failure::new(failure.code, format!("key {key}: {}", failure.message))
        }),
    }
}

/// Says of which queue a failure is.
fn of_queue(queue: Queue) -> impl Fn(usysv::Error) -> Failure {
    move |error| {
        let failure = Failure::from(error);
        Failure::new(failure.code, format!("queue {}: {}", queue.id(), failure.message))
    }
}

/// Uses the directory of `--dir`.
fn choose_directory(dir: &Path) -> Result<(), Failure> {
    let wrong = |error: String| Failure::new(Code::Wrong, format!("{}: {error}", dir.display()));
    let dir = std::path::absolute(dir).map_err(|error| wrong(error.to_string()))?;
    match std::fs::metadata(&dir) {
        Ok(there) if there.is_dir() => {}
        Ok(_) => return Err(wrong("not a directory".to_owned())),
        Err(error) => return Err(wrong(error.to_string())),
    }
    usysv::set_directory(&dir).map_err(|_| wrong("the path is too long for a directory of queues".to_owned()))
}

fn carry_out(usysv: Usysv) -> Outcome {
    if let Command::Run(run) = usysv.command {
        return run::run(run, usysv.dir.as_deref());
    }
    if let Command::Completions(arguments) = usysv.command {
        return completions::completions(&arguments);
    }
    let dir = usysv.dir.as_deref();
    match (&usysv.command, dir) {
        (Command::Doctor(_), Some(dir)) => doctor::choose(dir)?,
        (_, Some(dir)) => choose_directory(dir)?,
        (_, None) => {}
    }
    match usysv.command {
        Command::Run(_) | Command::Completions(_) => Ok(Code::Well),
        Command::Ls(arguments) => ls::ls(&arguments),
        Command::Show(arguments) => show::show(&arguments),
        Command::Peek(arguments) => peek::peek(&arguments),
        Command::Send(arguments) => transfer::send(&arguments),
        Command::Recv(arguments) => transfer::recv(&arguments),
        Command::Rm(arguments) => rm::rm(&arguments),
        Command::Limits(arguments) => limits::limits(&arguments),
        Command::Top(arguments) => top::top(&arguments),
        Command::Check(arguments) => check::check(&arguments),
        Command::Doctor(arguments) => doctor::doctor(&arguments, dir),
    }
}

fn main() -> ExitCode {
    let code = match carry_out(Usysv::parse()) {
        Ok(code) => code,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("usysv: {}", failure.message);
            }
            failure.code
        }
    };
    ExitCode::from(code as u8)
}
