//! `usysv completions`.

use crate::args::{Completions, Usysv};
use crate::{Code, Outcome};
use clap::CommandFactory;
use std::io::Write;

/// Prints the script for a shell.
pub fn completions(arguments: &Completions) -> Outcome {
    // Into memory first: the generator panics where a pipe is closed.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Usysv::command(), "usysv", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(Code::Well)
}
