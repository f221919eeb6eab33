//! A link on which another gateway asks.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tracing::warn;

use crate::cluster::Inquiry;

/// Links of one cluster that are answered at a time: every one of its gateways has one here.
pub(super) const MOST_LINKS: usize = 64;

/// Who asks, for the answer.
#[derive(Debug, Clone)]
pub(super) struct Asking(pub(super) Arc<str>);

/// How many links of each cluster are open.
#[derive(Debug, Clone, Default)]
pub(super) struct Places(Arc<Mutex<BTreeMap<Arc<str>, usize>>>);

/// A link that is counted.
#[derive(Debug)]
pub(super) struct Admitted {
    inquiry: Inquiry,
    places: Places,
}

impl Places {
    /// `None`, and the link is closed, when its cluster has too many.
    pub(super) fn admit(&self, inquiry: Inquiry) -> Option<Admitted> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(Arc::clone(&inquiry.cluster)).or_default();
        if *count >= MOST_LINKS {
            warn!(cluster = %inquiry.cluster, most = MOST_LINKS, "too many of its gateways ask what is exported: one more is not answered");
            return None;
        }
        *count += 1;
        Some(Admitted { inquiry, places: self.clone() })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.inquiry.cluster) {
            *count -= 1;
        }
    }
}

impl Connected for Admitted {
    type ConnectInfo = Asking;

    fn connect_info(&self) -> Asking {
        Asking(Arc::clone(&self.inquiry.cluster))
    }
}

impl AsyncRead for Admitted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inquiry.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Admitted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inquiry.stream).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inquiry.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inquiry.stream).poll_shutdown(context)
    }
}
