//! The one place where control and data meet: what is in force, swapped whole.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use super::table::Table;

/// A table with the settings that were published with it. Immutable.
#[derive(Debug)]
pub struct Generation<S> {
    /// Counts from 1; 0 is the empty table before the first configuration.
    pub number: u64,
    /// When it came into force.
    pub since: SystemTime,
    /// Where names lead.
    pub table: Table,
    /// What applies to connections.
    pub settings: Arc<S>,
}

/// What is in force. One load per connection, one store per change.
#[derive(Debug)]
pub struct Live<S>(ArcSwap<Generation<S>>);

impl<S> Live<S> {
    /// An empty table: every name is unknown.
    pub fn new(settings: Arc<S>) -> Self {
        let first =
            Generation { number: 0, since: SystemTime::now(), table: Table::default(), settings };
        Self(ArcSwap::from_pointee(first))
    }

    /// What is in force now. Hold it only as long as a decision takes: it keeps the whole table alive.
    pub fn load(&self) -> Arc<Generation<S>> {
        self.0.load_full()
    }

    /// The settings alone, for what applies before there is anything to decide. Never touches the table.
    pub fn settings(&self) -> Arc<S> {
        Arc::clone(&self.0.load().settings)
    }

    /// Puts a table and its settings in force. One owner calls this; the number is what tells generations apart.
    pub fn publish(&self, table: Table, settings: Arc<S>) -> u64 {
        let number = self.0.load().number + 1;
        self.0.store(Arc::new(Generation { number, since: SystemTime::now(), table, settings }));
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::routes_file::testing::file;
    use crate::model::snapshot::{Addresses, Routes};
    use crate::routing::build::{Inputs, OwnListeners, build};
    use crate::routing::endpoint::Endpoints;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    /// A table in which `stable` leads to the same endpoint for ever and one name is new in every generation.
    fn table(number: u64, endpoints: &mut Endpoints) -> Table {
        let text = format!("stable 10.0.0.1:1\nnew-{number} 10.0.0.2:{}\n", 1 + number % 60_000);
        let routes = Routes { files: vec![file(&text)], ..Routes::default() };
        let (addresses, own) = (Addresses::default(), OwnListeners::default());
        let inputs = Inputs { routes: &routes, addresses: &addresses, own: &own };
        build(&inputs, endpoints).unwrap()
    }

    #[test]
    fn a_thousand_generations_leave_nothing_but_what_is_held() {
        let mut endpoints = Endpoints::default();
        let live = Live::new(Arc::new(()));
        live.publish(table(0, &mut endpoints), Arc::new(()));
        let held = Arc::clone(live.load().table.lookup("stable").unwrap().route);
        let done = AtomicBool::new(false);
        let mut old = vec![];
        std::thread::scope(|scope| {
            let reader = || {
                let (mut last, mut lookups) = (0, 0);
                while !done.load(Relaxed) {
                    let generation = live.load();
                    assert!(generation.number >= last, "generations go forward");
                    assert!(generation.table.lookup("stable").is_some());
                    (last, lookups) = (generation.number, lookups + 1);
                }
                lookups
            };
            let readers = [scope.spawn(reader), scope.spawn(reader)];
            for number in 1..=1000 {
                old.push(Arc::downgrade(&live.load()));
                live.publish(table(number, &mut endpoints), Arc::new(()));
            }
            done.store(true, Relaxed);
            assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 0));
        });
        assert_eq!(old.iter().filter(|generation| generation.strong_count() > 0).count(), 0);
        assert_eq!(live.load().number, 1001);
        assert_eq!(Arc::strong_count(&held), 1, "the table that made it is gone");
        let now = Arc::clone(live.load().table.lookup("stable").unwrap().route);
        assert!(Arc::ptr_eq(&held.candidates[0].endpoint, &now.candidates[0].endpoint));
        drop((held, now));
        assert_eq!(endpoints.living().count(), 2, "the endpoints of the table in force");
    }
}
