//! Where a name leads: the table that the control side builds and the data side reads. Pure, but for [`live`].

pub mod balance;
pub mod build;
pub mod callers;
pub mod endpoint;
pub mod explain;
mod explanation;
pub mod holds;
mod index;
pub mod live;
mod names;
mod own;
mod resolve;
mod sides;
pub mod table;
mod template;
