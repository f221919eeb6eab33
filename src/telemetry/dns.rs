//! What is counted of the name server.

use prometheus::{IntCounterVec, Registry};

use super::metrics::{About, add, valid};

const ANSWERS: About =
    About("strait_dns_answers_total", "Answers of the name server, by transport and code.");
const DROPPED: About = About(
    "strait_dns_dropped_total",
    "Questions that the name server did not answer as asked: rate, streams, no_question.",
);

/// Counts of the name server.
#[derive(Debug)]
pub struct Dns {
    answers: IntCounterVec,
    dropped: IntCounterVec,
}

impl Dns {
    pub(super) fn new(registry: &Registry) -> Self {
        let answers = valid(IntCounterVec::new(ANSWERS.opts(), &["transport", "code"]));
        let dropped = valid(IntCounterVec::new(DROPPED.opts(), &["reason"]));
        Self { answers: add(registry, answers), dropped: add(registry, dropped) }
    }

    /// A question was answered over `udp` or `tcp`.
    pub fn answered(&self, transport: &'static str, code: &'static str) {
        self.answers.with_label_values(&[transport, code]).inc();
    }

    /// A question was not answered as it was asked, or a stream refused.
    pub fn dropped(&self, reason: &'static str) {
        self.dropped.with_label_values(&[reason]).inc();
    }
}
