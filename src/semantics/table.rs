//! `/proc/sysvipc/msg`: the queues, as text (`sysvipc_msg_proc_show` in `ipc/msg.c`).

use crate::namespace::{self, INDICES};
use crate::os::errno::Errno;
use core::fmt::{self, Write};

const HEADER: &str = concat!(
    "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid",
    "      stime      rtime      ctime\n"
);

/// Which indices are in use.
struct Indices([u64; INDICES as usize / 64]);

/// What is written is passed on in pieces.
struct Pieces<'a> {
    piece: [u8; 1024],
    filled: usize,
    put: &'a mut dyn FnMut(&[u8]) -> Result<(), Errno>,
    result: Result<(), Errno>,
}

impl Pieces<'_> {
    fn pass_on(&mut self) {
        let piece = self.piece.get(..self.filled).unwrap_or_default();
        if self.result.is_ok() && !piece.is_empty() {
            self.result = (self.put)(piece);
        }
        self.filled = 0;
    }
}

impl Write for Pieces<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.filled == self.piece.len() {
                self.pass_on();
            }
            if let Some(place) = self.piece.get_mut(self.filled) {
                *place = byte;
                self.filled += 1;
            }
        }
        Ok(())
    }
}

/// Writes a line for every queue, in the order of their indices, after one of headings.
#[inline(never)]
pub fn write(put: &mut dyn FnMut(&[u8]) -> Result<(), Errno>) -> Result<(), Errno> {
    let mut indices = Indices([0; INDICES as usize / 64]);
    namespace::list(|index| {
        if let Some(word) = indices.0.get_mut(index as usize / 64) {
            *word |= 1 << (index % 64);
        }
    })?;
    let mut text = Pieces { piece: [0; 1024], filled: 0, put, result: Ok(()) };
    let _ = text.write_str(HEADER);
    for (place, word) in indices.0.iter().enumerate() {
        let mut rest = *word;
        while rest != 0 {
            let index = place as u32 * 64 + rest.trailing_zeros();
            rest &= rest - 1;
            if let Ok((id, status)) = namespace::glimpse(index) {
                let _ = line(&mut text, id, &status);
            }
        }
    }
    text.pass_on();
    text.result
}

fn line(text: &mut dyn Write, id: u32, status: &crate::queue::Status) -> fmt::Result {
    let settings = &status.configuration;
    write!(text, "{:10} {id:10}  {:4o}  ", settings.key, settings.mode)?;
    write!(text, "{:10} {:10} {:5} {:5} ", status.cbytes, status.qnum, status.lspid, status.lrpid)?;
    write!(text, "{:5} {:5} {:5} {:5} ", settings.uid, settings.gid, settings.cuid, settings.cgid)?;
    writeln!(text, "{:10} {:10} {:10}", status.stime, status.rtime, settings.ctime)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Configuration, Status};

    /// A line that Linux 6.18 wrote.
    #[test]
    fn a_line_is_the_kernel_s() {
        let settings = Configuration {
            key: -1,
            mode: 0o600,
            uid: 1000,
            gid: 100,
            cuid: 0,
            cgid: 0,
            qbytes: 16384,
            ctime: 1_795_549_233,
        };
        let status = Status {
            configuration: settings,
            qnum: 2,
            cbytes: 16000,
            lspid: 123_456,
            lrpid: 0,
            stime: 1_795_549_233,
            rtime: 0,
            receivers: 0,
            senders: 0,
        };
        let mut text = String::new();
        line(&mut text, 70001, &status).unwrap();
        let (first, second) = (
            "        -1      70001   600       16000          2 123456     0  1000   100     0     0",
            " 1795549233          0 1795549233\n",
        );
        assert_eq!(text, format!("{first}{second}"));
    }
}
