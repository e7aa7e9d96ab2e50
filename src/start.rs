//! What is done when the library is loaded: read the environment before the program changes it, and look
//! up what would otherwise be looked up in a signal handler. Nothing is allocated here, and nothing asked of the
//! kernel that it will tell later as well: most programs that preload us never use a queue.
//!
//! What is called here once is all one function: code that every program runs at its start in as few pages as may be.
//!
//! Nothing depends on it but forks in the middle of a call (`os::thread::disown`): a constructor that calls us
//! before this one finds everything made on demand.

use ctor::ctor;

#[ctor(unsafe)]
fn start() {
    if !crate::os::process::can_ask_later() {
        crate::os::process::generation();
    }
    crate::os::process::at_fork(crate::namespace::after_fork);
    crate::namespace::read_environment();
    crate::semantics::limits::prepare();
    #[cfg(feature = "interpose")]
    crate::interpose::prepare();
}
