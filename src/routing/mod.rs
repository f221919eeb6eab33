//! Where a name leads: the table that the control side builds and the data side reads. Pure, but for [`live`].

pub mod balance;
pub mod build;
pub mod callers;
mod choices;
pub mod discover;
pub mod endpoint;
pub mod explain;
mod explanation;
pub mod holds;
mod index;
pub mod live;
mod names;
pub mod order;
mod own;
mod permissions;
mod resolve;
mod sides;
pub mod table;
mod template;
