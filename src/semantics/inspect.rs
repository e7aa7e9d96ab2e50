//! Looking into queues beyond what the four calls tell, with the permissions that the calls ask for: who may
//! receive may see the messages, and everybody may see the rest.

use super::identifier;
use super::permissions::Needs;
use crate::namespace;
use crate::os::errno::Errno;
use crate::queue::Selector;
use crate::queue::check::Finding;
use crate::queue::inspect::{Outline, Seen, TypeCount};

/// All queues, by index. One that is being made or removed is none.
pub fn list() -> Result<Vec<(u32, Outline)>, Errno> {
    let mut indices = Vec::new();
    namespace::list(|index| indices.push(index))?;
    indices.sort_unstable();
    indices.dedup();
    Ok(indices.into_iter().filter_map(|index| namespace::outline(index).ok()).collect())
}

/// A queue, as everybody may see it.
pub fn outline(msqid: i32) -> Result<Outline, Errno> {
    let id = identifier(msqid)?;
    let (there, outline) = namespace::outline(namespace::index_of(id))?;
    if there == id { Ok(outline) } else { Err(Errno::EINVAL) }
}

/// See [`Queue::messages`](crate::queue::Queue::messages).
pub fn messages(
    msqid: i32,
    wanted: Selector,
    from: u64,
    most: usize,
    room: usize,
) -> Result<Option<Vec<Seen>>, Errno> {
    let attached = namespace::attach(identifier(msqid)?)?;
    attached.queue().messages(&Needs::to_read(&attached), wanted, from, most, room)
}

/// See [`Queue::types`](crate::queue::Queue::types).
pub fn types(msqid: i32) -> Result<Option<Vec<TypeCount>>, Errno> {
    let attached = namespace::attach(identifier(msqid)?)?;
    attached.queue().types(&Needs::to_read(&attached))
}

/// See [`Queue::check`](crate::queue::Queue::check).
pub fn check(msqid: i32) -> Result<Finding, Errno> {
    let attached = namespace::attach(identifier(msqid)?)?;
    let queue = attached.queue();
    queue.permits(&Needs::to_read(&attached))?;
    let finding = queue.check();
    // A queue that is removed meanwhile is no longer there to be judged.
    queue.permits(&Needs::to_read(&attached))?;
    Ok(finding)
}
