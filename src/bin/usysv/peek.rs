//! `usysv peek`: messages, where they lie.

use crate::args::Peek;
use crate::output::{self, Cell, Colour, Paper, Table};
use crate::{Code, Failure, Outcome, find, of_queue};
use serde_json::{Value, json};
use std::fmt::Write as _;
use usysv::queue::Selector as Wanted;
use usysv::queue::inspect::Seen;
use usysv::semantics::inspect;
use usysv::{ErrorKind, Queue, Selector};

/// What the layers below call a selector. Here "the lowest type" does not choose one message but admits several.
fn wanted(selector: Selector) -> Wanted {
    match selector {
        Selector::First => Wanted::Any,
        Selector::Type(mtype) => Wanted::Type(mtype.get()),
        Selector::Except(mtype) => Wanted::Except(mtype.get()),
        Selector::UpTo(mtype) => Wanted::AtMost(mtype.get()),
    }
}

/// Messages one by one, by `MSG_COPY`, from a queue that gives no picture of the whole.
fn one_by_one(queue: Queue, arguments: &Peek) -> Result<Vec<Seen>, Failure> {
    let wanted = wanted(arguments.wanted.selector());
    let mut buffer = vec![0; usysv::shm::layout::MAX_TEXT as usize];
    let mut seen = Vec::new();
    for position in arguments.from.. {
        if seen.len() >= arguments.max as usize {
            break;
        }
        let peeked = match queue.peek(position, &mut buffer) {
            Ok(peeked) => peeked,
            Err(error) if error.kind() == ErrorKind::NoMessage => break,
            Err(error) => return Err(of_queue(queue)(error)),
        };
        if wanted.wants(peeked.mtype.get()) {
            let text = buffer[..peeked.length.min(arguments.bytes as usize)].to_vec();
            seen.push(Seen { position, mtype: peeked.mtype.get(), length: peeked.length as u32, text });
        }
    }
    Ok(seen)
}

/// Shows messages.
pub fn peek(arguments: &Peek) -> Outcome {
    let Some(name) = arguments.target.name() else { return Ok(Code::Usage) };
    let queue = find(name)?;
    let wanted = wanted(arguments.wanted.selector());
    let most = arguments.max as usize;
    let seen = inspect::messages(queue.id(), wanted, arguments.from, most, arguments.bytes as usize);
    let (seen, consistent) = match seen.map_err(|errno| of_queue(queue)(crate::show::missing(errno)))? {
        Some(seen) => (seen, true),
        None => (one_by_one(queue, arguments)?, false),
    };
    let mut paper = Paper::new();
    if arguments.format.json {
        let messages: Vec<Value> = seen.iter().map(|message| as_json(message, arguments.hex)).collect();
        paper.json(&json!({ "id": queue.id(), "consistent": consistent, "messages": messages }))?;
    } else {
        print(&mut paper, &seen, arguments.hex)?;
        if !consistent {
            paper
                .line("(the queue changed all the time: the messages were looked at one after the other)")?;
        }
    }
    paper.finish()?;
    Ok(if seen.is_empty() { Code::Nothing } else { Code::Well })
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The text of a message, if that is text: a 0 at its end, as C programs send it, aside.
pub fn as_text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()?;
    let printable = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    text.chars().all(printable).then_some(text)
}

fn as_json(seen: &Seen, as_hex: bool) -> Value {
    let mut value = json!({ "position": seen.position, "type": seen.mtype, "length": seen.length });
    // As it is, trailing zeros included, or not at all.
    match std::str::from_utf8(&seen.text) {
        Ok(text) if !as_hex => value["text"] = json!(text),
        _ => value["hex"] = json!(hex(&seen.text)),
    }
    value["complete"] = json!(seen.text.len() as u32 == seen.length);
    value
}

fn print(paper: &mut Paper, seen: &[Seen], as_hex: bool) -> std::io::Result<()> {
    let mut table = Table { right: vec![true, true, true, false], rows: Vec::new() };
    let heading = ["AT", "TYPE", "BYTES", "TEXT"];
    table.rows.push(heading.map(|name| Cell::new(name, Colour::Bold)).to_vec());
    for message in seen {
        let mut row: Vec<Cell> =
            [message.position.to_string(), message.mtype.to_string(), message.length.to_string()]
                .map(Cell::from)
                .to_vec();
        let rest = message.length as usize - message.text.len();
        let more = if rest == 0 { String::new() } else { format!(" ... and {rest} bytes more") };
        // A text that was cut may end within a character.
        let text = if rest == 0 { &message.text[..] } else { whole_characters(&message.text) };
        match as_text(text) {
            Some(text) if !as_hex => {
                row.push(format!("{}{more}", text.escape_debug()).into());
                table.rows.push(row);
            }
            _ => {
                for (number, bytes) in message.text.chunks(16).enumerate() {
                    let mut line = std::mem::replace(&mut row, vec!["".into(), "".into(), "".into()]);
                    line.push(dump(number * 16, bytes).into());
                    table.rows.push(line);
                }
                if !more.is_empty() || message.text.is_empty() {
                    row.push(more.trim_start().into());
                    table.rows.push(row);
                }
            }
        }
    }
    paper.table(&table)
}

/// Without the bytes of a character that is not complete.
fn whole_characters(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        _ => bytes,
    }
}

/// A line of a hex dump, as `hexdump -C` has it.
fn dump(offset: usize, bytes: &[u8]) -> String {
    let mut line = format!("{offset:08x} ");
    for place in 0..16 {
        if place % 8 == 0 {
            line.push(' ');
        }
        match bytes.get(place) {
            Some(byte) => line.push_str(&format!("{byte:02x} ")),
            None => line.push_str("   "),
        }
    }
    let text: String =
        bytes.iter().map(|&byte| if (0x20..0x7f).contains(&byte) { byte as char } else { '.' }).collect();
    output::printable(format!("{line} |{text}|").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_told_from_other_bytes() {
        assert_eq!(as_text(b"hello\n"), Some("hello\n"));
        assert_eq!(as_text(b"C string\0"), Some("C string"));
        assert_eq!(as_text(b"\x1b[2J"), None);
        assert_eq!(as_text(b"\xff"), None);
        assert_eq!(whole_characters("gr\u{fc}".as_bytes().split_last().unwrap().1), b"gr");
    }

    #[test]
    fn dumps_look_like_hexdump() {
        let line = "00000010  41 00 ff                                          |A..|";
        assert_eq!(dump(16, b"A\0\xff"), line);
        assert_eq!(hex(b"\x01\xab"), "01ab");
    }
}
