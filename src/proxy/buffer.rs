//! One buffer for each thread: bytes pass through it, and a connection that waits holds none.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

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

/// Reads a stream's bytes away until its end, or until they are enough.
pub(super) async fn discard(from: &mut (impl AsyncRead + Unpin), most: usize) -> io::Result<()> {
    let mut discarded = 0;
    while discarded < most {
        let read = poll_fn(|context| {
            with(|buffer| {
                let mut into = ReadBuf::new(buffer);
                ready!(Pin::new(&mut *from).poll_read(context, &mut into))?;
                Poll::Ready(io::Result::Ok(into.filled().len()))
            })
        })
        .await?;
        if read == 0 {
            break;
        }
        discarded += read;
    }
    Ok(())
}
