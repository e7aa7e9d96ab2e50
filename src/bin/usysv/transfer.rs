//! `usysv send` and `usysv recv`: for scripts and for debugging.

use crate::args::{Create, Name, Recv, Send, Target};
use crate::peek::hex;
use crate::{Code, Failure, Outcome, find, of_queue};
use serde_json::json;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::thread;
use std::time::{Duration, Instant};
use usysv::{Error, ErrorKind, Queue, Received};

fn target(target: &Target, create: Create) -> Result<Queue, Failure> {
    match target.name() {
        Some(Name::Key(key)) if create.create => Ok(Queue::create(key, create.mode)?),
        Some(Name::Id(_)) if create.create => {
            Err(Failure::new(Code::Usage, "--create needs a key: an identifier is given by the system"))
        }
        Some(name) => find(name),
        None => Err(Failure::new(Code::Usage, "which queue?")),
    }
}

/// Sends messages.
pub fn send(arguments: &Send) -> Outcome {
    let queue = target(&arguments.target, arguments.create)?;
    let send = |text: &[u8]| {
        let sent = Error::retry(|| match arguments.nowait {
            true => queue.try_send(arguments.mtype, text),
            false => queue.send(arguments.mtype, text),
        });
        sent.map_err(|error| {
            let failure = of_queue(queue)(error);
            match error.kind() {
                ErrorKind::TooLong => {
                    let message = format!("{}: {} bytes", failure.message, text.len());
                    Failure::new(failure.code, message)
                }
                _ => failure,
            }
        })
    };
    if let Some(text) = &arguments.message {
        send(text.as_bytes())?;
        return Ok(Code::Well);
    }
    let mut input = io::stdin().lock();
    let mut text = Vec::new();
    if !arguments.lines {
        // What is too long is not read to its end.
        let most = usysv::shm::layout::MAX_TEXT + 1;
        input.take(most).read_to_end(&mut text)?;
        send(&text)?;
        return Ok(Code::Well);
    }
    while input.read_until(b'\n', &mut text)? > 0 {
        send(text.strip_suffix(b"\n").unwrap_or(&text))?;
        text.clear();
    }
    Ok(Code::Well)
}

/// Takes a message, waiting for it as the arguments say.
fn take(queue: Queue, arguments: &Recv, buffer: &mut [u8]) -> Result<Received, Error> {
    let selector = arguments.wanted.selector();
    let mut attempt = |wait: bool| {
        Error::retry(|| match (arguments.bytes.is_some(), wait) {
            (false, true) => queue.receive(selector, buffer),
            (false, false) => queue.try_receive(selector, buffer),
            (true, true) => queue.receive_cut(selector, buffer),
            (true, false) => queue.try_receive_cut(selector, buffer),
        })
    };
    let Some(timeout) = arguments.timeout else { return attempt(!arguments.nowait) };
    // The four calls know no time-out. To look again and again loses no message, as ending in the middle of a
    // call would.
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(1);
    loop {
        match attempt(false) {
            Err(error) if error.kind() == ErrorKind::NoMessage && Instant::now() < deadline => {
                thread::sleep(pause.min(deadline.saturating_duration_since(Instant::now())));
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            result => return result,
        }
    }
}

/// Takes messages.
pub fn recv(arguments: &Recv) -> Outcome {
    let queue = target(&arguments.target, arguments.create)?;
    // More than any text; pages that are not touched cost nothing.
    let room = arguments.bytes.map_or(usysv::shm::layout::MAX_TEXT, u64::from);
    let mut buffer = vec![0; room as usize];
    let mut out = io::stdout().lock();
    let mut taken: u64 = 0;
    while arguments.count == 0 || taken < arguments.count {
        let received = match take(queue, arguments, &mut buffer) {
            Ok(received) => received,
            Err(error) if arguments.count == 0 && taken > 0 && is_gone(error) => break,
            Err(error) if arguments.count == 0 && error.kind() == ErrorKind::Removed => break,
            // What is missing is said by the exit code.
            Err(error) if error.kind() == ErrorKind::NoMessage => return Ok(Code::Nothing),
            Err(error) => return Err(of_queue(queue)(error)),
        };
        taken += 1;
        let text = buffer.get(..received.length).unwrap_or_default();
        if arguments.json {
            let mut line = json!({ "type": received.mtype.get(), "length": received.length });
            match std::str::from_utf8(text) {
                Ok(text) => line["text"] = json!(text),
                Err(_) => line["hex"] = json!(hex(text)),
            }
            writeln!(out, "{line}")?;
        } else {
            out.write_all(text)?;
            if arguments.lines {
                out.write_all(b"\n")?;
            }
        }
        // Before the next is taken: what was taken is nobody else's any more.
        out.flush()?;
    }
    Ok(Code::Well)
}

fn is_gone(error: Error) -> bool {
    matches!(error.kind(), ErrorKind::Removed | ErrorKind::NotFound)
}
