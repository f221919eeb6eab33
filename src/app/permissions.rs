//! Joins documents of allowed apps with the admin API: where they are written, and what is in force.

use std::sync::Arc;

use axum::Router;
use tokio::sync::watch;

use crate::permissions::InForce;
use crate::permissions::api::Desk;
use crate::permissions::follow::Followed;
use crate::permissions::service::Service;
use crate::routing::discover::discover;
use crate::routing::table::Table;

use super::Parts;

/// The routes of the admin API that are about documents. Writes go to the store that is followed.
pub(super) fn router(parts: &Arc<Parts>, stores: watch::Receiver<Option<Followed>>) -> Router {
    let store = move || stores.borrow().as_ref().map(|followed| Arc::clone(&followed.store));
    let service = Service::new(Box::new(store), parts.in_force.subscribe());
    let parts = Arc::clone(parts);
    let stop = parts.around_stop.clone();
    let discover = move |caller: &_| discover(&parts.live.load().table, caller);
    Desk::new(Arc::new(service), Arc::new(discover), stop).router()
}

/// Tells what has come into force with a table, if that is something else.
pub(super) fn tell(in_force: &watch::Sender<Arc<InForce>>, table: &Table) {
    let configured = table.permissions();
    let now = InForce {
        stored: Arc::clone(table.documents()),
        configured: Arc::clone(&configured.documents),
        bound: configured.bound.clone(),
    };
    in_force.send_if_modified(|known| {
        let differs = !known.is_same(&now);
        if differs {
            *known = Arc::new(now);
        }
        differs
    });
}
