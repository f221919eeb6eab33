//! One buffer for each thread: bytes pass through it, and a connection that waits holds none.

use std::cell::RefCell;

/// Most bytes of one read. 64 KiB is where a larger buffer stopped to pay in throughput, and it still fits into a core's L2
/// cache; it bounds what a direction keeps when the other side takes nothing.
pub(super) const SIZE: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SIZE].into());
}

/// Lends the thread's buffer for as long as one poll lasts: nothing in it survives an await.
pub(super) fn with<R>(borrow: impl FnOnce(&mut [u8]) -> R) -> R {
    BUFFER.with_borrow_mut(|buffer| borrow(buffer))
}
