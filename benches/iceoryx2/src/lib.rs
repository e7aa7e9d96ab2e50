//! iceoryx2 as a transport of the benchmark (see `bench.h`): a publish-subscribe service of byte slices with one
//! publisher and one subscriber, which neither overflows nor discards.
//!
//! iceoryx2 has no blocking receive on such a service: a receiver polls, and yields its CPU after a while.

use core::ffi::c_int;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use std::cell::RefCell;

const SEND: c_int = 1;
const RECEIVE: c_int = 2;
/// How often a receiver looks before it yields.
const LOOKS: u32 = 1000;

#[derive(Default)]
struct State {
    owner: u32,
    size: usize,
    depth: usize,
    node: Option<Node<ipc::Service>>,
    publishers: Vec<Option<Publisher<ipc::Service, [u8], ()>>>,
    subscribers: Vec<Option<Subscriber<ipc::Service, [u8], ()>>>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// See `bench.h`.
#[unsafe(no_mangle)]
pub extern "C" fn transport_make(count: c_int, size: usize, depth: c_int, many: c_int) -> c_int {
    if many != 0 || count > 2 {
        return -1; // a service is a broadcast; and a thousand of them are not what it is made for
    }
    set_log_level(LogLevel::Fatal);
    STATE.with_borrow_mut(|state| {
        *state = State { owner: std::process::id(), size, depth: depth as usize, ..State::default() };
        state.publishers.resize_with(count as usize, || None);
        state.subscribers.resize_with(count as usize, || None);
    });
    depth
}

fn join(state: &mut State, queue: usize, role: c_int) -> Result<(), Box<dyn core::error::Error>> {
    if state.node.is_none() {
        state.node = Some(NodeBuilder::new().create::<ipc::Service>()?);
    }
    let Some(node) = &state.node else { return Ok(()) };
    let name = format!("usysv-bench/{}/{queue}", state.owner);
    let service = node
        .service_builder(&name.as_str().try_into()?)
        .publish_subscribe::<[u8]>()
        .subscriber_max_buffer_size(state.depth)
        .enable_safe_overflow(false)
        .open_or_create()?;
    if role & RECEIVE != 0 {
        state.subscribers[queue] = Some(service.subscriber_builder().create()?);
    }
    if role & SEND != 0 {
        let builder = service.publisher_builder().initial_max_slice_len(state.size);
        let builder = builder.unable_to_deliver_strategy(UnableToDeliverStrategy::Block);
        state.publishers[queue] = Some(builder.create()?);
    }
    Ok(())
}

/// See `bench.h`.
#[unsafe(no_mangle)]
pub extern "C" fn transport_join(queue: c_int, role: c_int) {
    STATE.with_borrow_mut(|state| join(state, queue as usize, role).expect("iceoryx2 lets us in"));
}

/// See `bench.h`.
///
/// # Safety
/// `text` must be `size` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn transport_send(queue: c_int, text: *const u8, size: usize) {
    // SAFETY: the caller's promise.
    let text = unsafe { core::slice::from_raw_parts(text, size) };
    STATE.with_borrow(|state| {
        let publisher = state.publishers[queue as usize].as_ref().expect("joined to send");
        let sample = publisher.loan_slice_uninit(size).expect("a sample");
        // Blocks, by its strategy, while the subscriber's buffer is full; nobody there yet: again.
        sample.write_from_slice(text).send().expect("sent");
    });
}

/// See `bench.h`.
///
/// # Safety
/// `text` must be `room` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn transport_receive(queue: c_int, text: *mut u8, room: usize) {
    STATE.with_borrow(|state| {
        let subscriber = state.subscribers[queue as usize].as_ref().expect("joined to receive");
        let mut looks = 0;
        loop {
            if let Some(sample) = subscriber.receive().expect("received") {
                let size = sample.payload().len().min(room);
                // SAFETY: the caller's promise.
                unsafe { core::ptr::copy_nonoverlapping(sample.payload().as_ptr(), text, size) };
                return;
            }
            looks += 1;
            if looks % LOOKS == 0 {
                std::thread::yield_now();
            } else {
                core::hint::spin_loop();
            }
        }
    });
}

/// See `bench.h`.
#[unsafe(no_mangle)]
pub extern "C" fn transport_leave() {
    STATE.with_borrow_mut(|state| {
        state.publishers.clear();
        state.subscribers.clear();
        state.node = None;
    });
}

/// See `bench.h`.
#[unsafe(no_mangle)]
pub extern "C" fn transport_drop() {
    transport_leave();
}
