//! Which app or service has a name: whoever came by it for one must be gone before it leads to another.
//!
//! A sidecar pools its connections by what it dialled and checks the other side's identity once for each. So calls for the app that
//! has a name now would run in the one that had it, as long as a connection from before lives. A name that leads nowhere for a
//! while is no exception: the connections go on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Weak};

use crate::model::name::Name;

/// One app's or service's hold on one name. Tables share it as long as the name stays there.
#[derive(Debug)]
pub struct Hold {
    /// The name.
    pub name: Name,
    /// The label of the route.
    pub label: Arc<str>,
    /// Connections that came by it.
    open: AtomicUsize,
    revoked: AtomicBool,
    /// Those on the same name that came before and are another's. Few: those that live when this one begins.
    others: Box<[Weak<Hold>]>,
}

impl Hold {
    /// Counts a connection until the value is dropped; nothing where the name leads elsewhere by now.
    ///
    /// The order of the two steps, and the reverse one in [`is_clear`](Self::is_clear), is what makes sure that nobody slips through.
    pub fn enter(self: Arc<Self>) -> Option<Stay> {
        self.open.fetch_add(1, SeqCst);
        let stay = Stay(self);
        if stay.is_revoked() { None } else { Some(stay) }
    }

    /// Whether it follows others that may still have connections: for most names never.
    pub fn has_others(&self) -> bool {
        !self.others.is_empty()
    }

    /// Whether nobody is left who came by the name for another. Whoever is, has to go from now on; of each other with such,
    /// `told` is told once.
    pub fn is_clear(&self, mut told: impl FnMut(&Self)) -> bool {
        let mut clear = true;
        for other in self.others.iter().filter_map(Weak::upgrade) {
            let news = !other.revoked.swap(true, SeqCst);
            let open = other.open.load(SeqCst) > 0;
            if news && open {
                told(&other);
            }
            clear &= !open;
        }
        clear
    }

    /// Whether the name leads elsewhere by now.
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(SeqCst)
    }
}

/// A connection that came by a name, as long as it lives.
#[derive(Debug)]
pub struct Stay(Arc<Hold>);

impl Stay {
    /// Whether it has to end.
    pub fn is_revoked(&self) -> bool {
        self.0.is_revoked()
    }

    /// Where the name led when it came.
    pub fn hold(&self) -> &Arc<Hold> {
        &self.0
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
    }
}

/// All holds that a table or a connection has, in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct Holds(HashMap<Name, Vec<Weak<Hold>>>);

impl Holds {
    /// The hold of a route on a name: the last one if it is the same route's, else a new one that waits for all others.
    pub(super) fn hold(&mut self, name: &Name, label: &Arc<str>) -> Arc<Hold> {
        let known = self.0.entry(name.clone()).or_default();
        let last = known.last().and_then(Weak::upgrade);
        if let Some(last) = last.filter(|last| last.label == *label && !last.is_revoked()) {
            return last;
        }
        let is_other = |hold: &&Weak<Hold>| hold.upgrade().is_some_and(|hold| hold.label != *label);
        let others = known.iter().filter(is_other).cloned().collect();
        let (open, revoked) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (name, label) = (name.clone(), Arc::clone(label));
        let hold = Arc::new(Hold { name, label, open, revoked, others });
        known.push(Arc::downgrade(&hold));
        hold
    }

    /// Forgets what nobody has any more.
    pub(super) fn purge(&mut self) {
        self.0.retain(|_, known| {
            known.retain(|hold| hold.strong_count() > 0);
            !known.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(holds: &mut Holds, label: &str) -> Arc<Hold> {
        holds.hold(&Name::parse("x.example").unwrap(), &label.into())
    }

    fn is_clear(hold: &Hold) -> bool {
        hold.is_clear(|_| ())
    }

    #[test]
    fn a_name_that_stays_has_one_hold_and_waits_for_nobody() {
        let mut holds = Holds::default();
        let first = hold(&mut holds, "shop/a");
        let stay = Arc::clone(&first).enter().unwrap();
        assert!(Arc::ptr_eq(&first, &hold(&mut holds, "shop/a")));
        assert!(is_clear(&first) && !first.has_others() && !stay.is_revoked());
        drop((first, stay));
        holds.purge();
        assert!(holds.0.is_empty());
    }

    #[test]
    fn another_app_waits_until_all_are_gone_and_nobody_enters_meanwhile() {
        let mut holds = Holds::default();
        let a = hold(&mut holds, "shop/a");
        let stay = Arc::clone(&a).enter().unwrap();
        let b = hold(&mut holds, "shop/b");
        assert!(!stay.is_revoked(), "the table with it may never come");
        let mut told = Vec::new();
        assert!(!b.is_clear(|other| told.push(other.label.to_string())));
        assert!(!b.is_clear(|_| panic!("told once")));
        assert_eq!(told, ["shop/a"]);
        assert!(stay.is_revoked() && Arc::clone(&a).enter().is_none());
        drop(stay);
        assert!(is_clear(&b));
    }

    #[test]
    fn a_name_that_led_nowhere_or_comes_back_is_no_exception() {
        let mut holds = Holds::default();
        let a = hold(&mut holds, "shop/a").enter().unwrap();
        holds.purge();
        let b = hold(&mut holds, "shop/b");
        let stay = Arc::clone(&b).enter().unwrap();
        // Back to the first before anybody has looked: the first's own connections may stay, the second's may not.
        let again = hold(&mut holds, "shop/a");
        assert!(!Arc::ptr_eq(&again, a.hold()));
        assert!(!is_clear(&again));
        assert!(stay.is_revoked() && !a.is_revoked());
        drop(stay);
        assert!(is_clear(&again));
    }
}
