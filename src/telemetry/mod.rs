//! What the gateway says of itself: logs in [`logging`], numbers in [`metrics`].

pub mod dns;
pub mod links;
pub mod logging;
pub mod metrics;
pub mod observed;
mod process;
pub mod refusals;
mod series;
