//! `usysv run`: becomes a program, with the library preloaded.

use crate::args::Run;
use crate::program::{self, Refusal};
use crate::{Code, Failure, Outcome, choose_directory};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

fn failed(message: impl Into<String>) -> Failure {
    Failure::new(Code::RunFailed, message)
}

/// Runs a program; returns only if that fails.
pub fn run(arguments: Run, dir: Option<&Path>) -> Outcome {
    let library = match &arguments.library {
        Some(library) => {
            library.canonicalize().map_err(|error| failed(format!("{}: {error}", library.display())))?
        }
        None => program::library().ok_or_else(|| {
            failed(
                "libusysv.so was not found: neither beside this tool, nor in ../lib, LD_LIBRARY_PATH or what \
                 ldconfig knows. Name it with --library",
            )
        })?,
    };
    program::examine(&arguments.program, &library).map_err(|refusal| match refusal {
        Refusal::NotFound(why) => Failure::new(Code::NoProgram, why),
        Refusal::Cannot(why) => Failure::new(Code::CannotRun, why),
    })?;
    let preload = program::preload(&library, std::env::var_os("LD_PRELOAD").as_deref());
    let preload = preload.ok_or_else(|| {
        failed(format!(
            "{}: LD_PRELOAD cannot hold a path with spaces or colons. Copy or link the library elsewhere and name \
             that with --library",
            library.display()
        ))
    })?;
    let [program, rest @ ..] = arguments.program.as_slice() else { return Err(failed("no program given")) };
    let mut command = Command::new(program);
    command.args(rest).env("LD_PRELOAD", preload);
    if let Some(dir) = dir {
        choose_directory(dir).map_err(|failure| failed(failure.message))?;
        command.env("USYSV_DIR", usysv::directory());
    }
    for limit in &arguments.limits {
        command.env(format!("USYSV_{}", limit.name.to_uppercase()), limit.value.to_string());
    }
    let error = command.exec();
    let code = if error.kind() == io::ErrorKind::NotFound { Code::NoProgram } else { Code::CannotRun };
    Err(Failure::new(code, format!("{}: {error}", program.to_string_lossy())))
}
