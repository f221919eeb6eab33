//! Who has which egress address from now on. Pure: what was and what is wanted in, what is and what is wrong out.
//!
//! A sidecar pools its connections by address and checks the other side's identity once for each. So an address stays with its app
//! whatever becomes of others, and one that is given up rests before somebody else may have it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::model::egress::{EgressSpec, Holder, Place, Space};

use super::lock;

/// A freed address is nobody else's for so long. A sidecar closes a connection that is idle for 3 minutes and a resolver's answer
/// is older than that nowhere; ten are an operator's slip noticed and taken back.
pub const REST: Duration = Duration::from_mins(10);

/// Who has what, and who had it until lately: what the lock file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allocations(pub BTreeMap<Place, Allocation>);

/// One address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// Whose it is, or was.
    pub holder: Holder,
    /// Since when it rests; `None` while it is in use.
    pub resting: Option<SystemTime>,
}

impl Allocation {
    /// An address in use.
    pub fn of(holder: Holder) -> Self {
        Self { holder, resting: None }
    }

    /// Whether it may be given to another holder. A time to come is one of a clock that was set back since: it rests anew.
    fn is_rested(&self, now: SystemTime) -> bool {
        self.resting.is_some_and(|since| now.duration_since(since).is_ok_and(|rest| rest >= REST))
    }
}

/// One that is to have addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The label of its route.
    pub holder: Holder,
    /// What it asks for.
    pub spec: EgressSpec,
}

/// Whether addresses may be given that were not given before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grants {
    /// Yes: they can be written down.
    Allowed,
    /// No: what is not written down would be somebody else's after a restart.
    Denied(Denial),
}

/// Why nothing new may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// The lock is there and cannot be written.
    ReadOnly,
    /// There is no lock, and no place where one can be made.
    NoPlace,
    /// The lock holds lines that cannot be read.
    Garbled,
    /// Another gateway has had the lock for too long.
    Busy,
    /// It is only looked at: what gives addresses is a gateway.
    OnlyLooked,
}

/// What comes of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is in force from now on.
    pub allocations: Allocations,
    /// Who is served not at all, or not as asked.
    pub problems: Vec<Problem>,
    /// When the first address has rested for long enough: time for another plan.
    pub next: Option<SystemTime>,
}

/// Somebody does not have what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Who.
    pub holder: Holder,
    /// Why.
    pub why: Why,
}

/// Why somebody does not have what was asked for. Written with the way to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Another one has pinned the same.
    PinnedTwice(Place, Holder),
    /// What is pinned has been given to another one.
    Held(Place, Holder),
    /// What is pinned was another one's until lately.
    Resting(Place, Holder, SystemTime),
    /// What is pinned is not of the kind that `listeners.egress` gives.
    NoSuchPlace(Place),
    /// Every address is given or rests: so many are missing.
    Full(usize),
    /// It is not in the lock, and the lock must not be changed: the line to add, if an address is free.
    NotInLock(Denial, Option<String>),
}

/// Plans. `before` is what was in force or in the lock; nothing of it moves but for a pin, a smaller number or another space.
pub fn plan(
    before: &Allocations,
    wanted: &[Wanted],
    space: &Space,
    grants: Grants,
    now: SystemTime,
) -> Plan {
    let mut planning = Planning::new(before, wanted, space, now);
    planning.keep();
    planning.let_rest();
    planning.pin();
    planning.grant(grants);
    planning.finish()
}

struct Planning<'a> {
    before: &'a Allocations,
    /// In the order of their names: the same wishes make the same plan.
    wanted: BTreeMap<&'a Holder, EgressSpec>,
    space: &'a Space,
    now: SystemTime,
    /// Who has pinned what; the first where several have.
    pins: BTreeMap<Place, &'a Holder>,
    after: BTreeMap<Place, Allocation>,
    /// How many places of `after` somebody uses.
    has: HashMap<&'a Holder, usize>,
    problems: Vec<Problem>,
}

impl<'a> Planning<'a> {
    fn new(
        before: &'a Allocations,
        wanted: &'a [Wanted],
        space: &'a Space,
        now: SystemTime,
    ) -> Self {
        let wanted: BTreeMap<_, _> = wanted.iter().map(|one| (&one.holder, one.spec)).collect();
        let mut pins = BTreeMap::new();
        for (holder, spec) in &wanted {
            let Some(pin) = spec.pin.filter(|pin| space.takes_pin(*pin)) else { continue };
            // Whoever has it already goes before whoever comes first.
            if before.0.get(&pin).is_some_and(|found| found.holder == **holder) {
                pins.insert(pin, *holder);
            } else {
                pins.entry(pin).or_insert(*holder);
            }
        }
        let (after, has) = (BTreeMap::new(), HashMap::new());
        Self { before, wanted, space, now, pins, after, has, problems: Vec::new() }
    }

    /// Whether a holder can have what it pinned. What is another one's is not to be had in any case: that one goes on with it, or
    /// it must rest.
    fn gets(&self, pin: Place, holder: &Holder) -> bool {
        let found = self.before.0.get(&pin);
        self.pins.get(&pin) == Some(&holder)
            && found.is_none_or(|found| found.holder == *holder || found.is_rested(self.now))
    }

    /// What is in use and still may be; then what rests, for those who come back.
    fn keep(&mut self) {
        for resting in [false, true] {
            for (&place, allocation) in &self.before.0 {
                let wanted = self.wanted.get_key_value(&allocation.holder);
                let Some((&holder, &spec)) = wanted else { continue };
                if allocation.resting.is_some() == resting
                    && self.may_keep(place, holder, spec, resting)
                {
                    self.give(place, holder);
                }
            }
        }
    }

    fn may_keep(&self, place: Place, holder: &Holder, spec: EgressSpec, resting: bool) -> bool {
        if spec.pin == Some(place) {
            return self.gets(place, holder);
        }
        // Room that the pin takes is not there for others.
        let pinned = spec.pin.filter(|pin| self.gets(*pin, holder));
        let reserved = pinned.is_some_and(|pin| !self.after.contains_key(&pin));
        let room = usize::from(spec.addresses.max(1)) - usize::from(reserved);
        let elsewhere = resting && self.pins.contains_key(&place);
        self.space.gives(place) && !elsewhere && self.count(holder) < room
    }

    /// What was in use by somebody and is not any more begins to rest, and what has rested is forgotten.
    fn let_rest(&mut self) {
        for (place, allocation) in &self.before.0 {
            let since = allocation.resting.unwrap_or(self.now).min(self.now);
            if !self.after.contains_key(place) && since + REST > self.now {
                let holder = Arc::clone(&allocation.holder);
                self.after.insert(*place, Allocation { holder, resting: Some(since) });
            }
        }
    }

    fn pin(&mut self) {
        for (holder, spec) in self.wanted.clone() {
            let Some(pin) = spec.pin else { continue };
            let found = self.after.get(&pin);
            if found.is_some_and(|found| found.holder == *holder && found.resting.is_none()) {
                continue;
            }
            if self.gets(pin, holder) {
                self.give(pin, holder);
            } else {
                let why = self.trouble(pin, holder);
                self.problem(holder, why);
            }
        }
    }

    /// Why a holder does not get what it pinned.
    fn trouble(&self, pin: Place, holder: &Holder) -> Why {
        match self.pins.get(&pin) {
            None => return Why::NoSuchPlace(pin),
            Some(first) if *first != holder => {
                return Why::PinnedTwice(pin, Arc::clone(first));
            }
            Some(_) => {}
        }
        match self.after.get(&pin) {
            Some(Allocation { holder: other, resting: Some(since) }) => {
                Why::Resting(pin, Arc::clone(other), *since + REST)
            }
            Some(Allocation { holder: other, resting: None }) => Why::Held(pin, Arc::clone(other)),
            None => Why::Resting(pin, Arc::clone(holder), self.now),
        }
    }

    /// Gives new addresses to those who lack some, or says what would be given.
    fn grant(&mut self, grants: Grants) {
        let taken: BTreeSet<Place> = self.after.keys().chain(self.pins.keys()).copied().collect();
        let space = self.space;
        let mut free = space.places().filter(|place| !taken.contains(place));
        for (holder, spec) in self.wanted.clone() {
            let missing = self.missing(holder, spec);
            for left in (1..=missing).rev() {
                match (free.next(), grants) {
                    (Some(place), Grants::Allowed) => self.give(place, holder),
                    (place, Grants::Denied(denial)) => {
                        let line = place
                            .map(|place| lock::line(place, &Allocation::of(Arc::clone(holder))));
                        self.problem(holder, Why::NotInLock(denial, line));
                    }
                    (None, Grants::Allowed) => {
                        self.problem(holder, Why::Full(left));
                        break;
                    }
                }
            }
        }
    }

    /// How many addresses one lacks. Who waits for what it pinned is not given another one meanwhile.
    fn missing(&self, holder: &Holder, spec: EgressSpec) -> usize {
        let waits = spec
            .pin
            .is_some_and(|pin| self.after.get(&pin).is_none_or(|found| found.holder != *holder));
        let wanted = usize::from(spec.addresses.max(1)) - usize::from(waits);
        wanted.saturating_sub(self.count(holder))
    }

    fn count(&self, holder: &Holder) -> usize {
        self.has.get(holder).copied().unwrap_or_default()
    }

    fn give(&mut self, place: Place, holder: &'a Holder) {
        self.after.insert(place, Allocation::of(Arc::clone(holder)));
        *self.has.entry(holder).or_default() += 1;
    }

    fn problem(&mut self, holder: &Holder, why: Why) {
        self.problems.push(Problem { holder: Arc::clone(holder), why });
    }

    fn finish(self) -> Plan {
        let next =
            self.after.values().filter_map(|one| one.resting.map(|since| since + REST)).min();
        Plan { allocations: Allocations(self.after), problems: self.problems, next }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.holder, self.why)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PinnedTwice(place, other) => {
                write!(out, "{place} is pinned by {other} too; pin another one")
            }
            Self::Held(place, other) => write!(
                out,
                "{place}, which it pins, has been given to {other}, whose callers know it; pin a free one, or pin {other} \
                 elsewhere first"
            ),
            Self::Resting(place, other, until) => write!(
                out,
                "{place}, which it pins, was {other}'s and rests until {}: a caller may still hold a connection; wait, or pin \
                 another one",
                lock::time(*until)
            ),
            Self::NoSuchPlace(place) => write!(
                out,
                "{place}, which it pins, is not of listeners.egress; pin `port` where there are ports and `address` where there \
                 is a pool"
            ),
            Self::Full(missing) => write!(
                out,
                "no address is free, {missing} missing; give listeners.egress more, those that were freed rest {} minutes",
                REST.as_secs() / 60
            ),
            Self::NotInLock(denial, line) => not_in_lock(out, *denial, line.as_deref()),
        }
    }
}

fn not_in_lock(out: &mut fmt::Formatter<'_>, denial: Denial, line: Option<&str>) -> fmt::Result {
    match (denial, line) {
        (Denial::NoPlace, _) => out.write_str(
            "there is no place where its address could be kept over a restart; set a stateDir that can be written, or pin it \
             with `egress`",
        ),
        (Denial::Garbled, _) => out.write_str(
            "nothing new is given while lines of egress.lock cannot be read; mend them, or pin it with `egress`",
        ),
        (Denial::Busy, _) => out.write_str(
            "nothing new is given while another gateway holds egress.lock; see what keeps that one from its disk",
        ),
        (Denial::OnlyLooked, _) => out.write_str(
            "it has no line in egress.lock yet: the gateway gives it an address when this configuration comes into force",
        ),
        (Denial::ReadOnly, Some(line)) => write!(
            out,
            "it is not in egress.lock, which cannot be written from here; add the line `{line}` where the file comes from"
        ),
        (Denial::ReadOnly, None) => out.write_str(
            "it is not in egress.lock, which cannot be written from here, and no address is free; give listeners.egress more",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: u64 = 1_800_000_000;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(START + seconds)
    }

    fn ports(range: Option<std::ops::RangeInclusive<u16>>) -> Space {
        let [bind, announce] = ["::", "10.0.0.5"].map(|ip| ip.parse().unwrap());
        Space::Ports { bind, announce, range }
    }

    fn want(holder: &str, pin: Option<u16>, addresses: u16) -> Wanted {
        let spec = EgressSpec { pin: pin.map(Place::Port), addresses, port: None };
        Wanted { holder: holder.into(), spec }
    }

    fn plain(holders: &[&str]) -> Vec<Wanted> {
        holders.iter().map(|holder| want(holder, None, 1)).collect()
    }

    /// Places of a plan, as the lock has them, without the times.
    fn shown(plan: &Plan) -> Vec<String> {
        let shown = |(place, one): (&Place, &Allocation)| {
            format!("{place} {}{}", one.holder, if one.resting.is_some() { " rests" } else { "" })
        };
        plan.allocations.0.iter().map(shown).collect()
    }

    fn troubles(plan: &Plan) -> Vec<String> {
        plan.problems.iter().map(ToString::to_string).collect()
    }

    /// The next plan of a range of four ports.
    fn next(before: &Plan, wanted: &[Wanted], seconds: u64) -> Plan {
        plan(&before.allocations, wanted, &ports(Some(20000..=20003)), Grants::Allowed, at(seconds))
    }

    #[test]
    fn addresses_are_given_lowest_first_and_stay() {
        let first = next(&Plan::default(), &plain(&["shop/b", "shop/a"]), 0);
        assert_eq!(shown(&first), ["20000 shop/a", "20001 shop/b"]);
        let more = next(&first, &plain(&["shop/0", "shop/a", "shop/b"]), 1);
        assert_eq!(shown(&more), ["20000 shop/a", "20001 shop/b", "20002 shop/0"]);
        let fewer = next(&more, &plain(&["shop/0", "shop/b"]), 2);
        assert_eq!(shown(&fewer), ["20000 shop/a rests", "20001 shop/b", "20002 shop/0"]);
        assert_eq!(fewer.next, Some(at(602)));
        let other = next(&fewer, &plain(&["shop/0", "shop/b", "shop/c"]), 601);
        assert_eq!(shown(&other)[3], "20003 shop/c", "not the one that rests");
        let back = next(&fewer, &plain(&["shop/a"]), 601);
        assert_eq!(shown(&back)[0], "20000 shop/a", "its own is given back");
        let late = next(&fewer, &plain(&["shop/0", "shop/b", "shop/c"]), 602);
        assert_eq!(shown(&late)[0], "20000 shop/c", "it has rested");
    }

    #[test]
    fn a_full_range_refuses_who_comes_last_and_serves_it_once_an_address_has_rested() {
        let four = next(&Plan::default(), &plain(&["a", "b", "c", "d"]), 0);
        let five = next(&four, &plain(&["a", "b", "c", "d", "e"]), 1);
        assert_eq!(five.allocations, four.allocations);
        let told = "e: no address is free, 1 missing; give listeners.egress more, those that were freed rest 10 minutes";
        assert_eq!(troubles(&five), [told]);
        let without = next(&five, &plain(&["b", "c", "d", "e"]), 2);
        assert_eq!(troubles(&without), [told]);
        let later = next(&without, &plain(&["b", "c", "d", "e"]), 602);
        assert_eq!(shown(&later), ["20000 e", "20001 b", "20002 c", "20003 d"]);
        assert!(later.problems.is_empty());
    }

    #[test]
    fn a_pin_is_kept_free_and_moves_its_holder() {
        let pinned = [want("a", None, 1), want("b", Some(20000), 1), want("c", Some(30000), 1)];
        let first = next(&Plan::default(), &pinned, 0);
        assert_eq!(shown(&first), ["20000 b", "20001 a", "30000 c"]);
        let moved = next(&first, &[want("a", None, 1), want("b", Some(20002), 1)], 1);
        assert_eq!(shown(&moved), ["20000 b rests", "20001 a", "20002 b", "30000 c rests"]);
        let unpinned = next(&moved, &plain(&["a", "b"]), 2);
        assert!(shown(&unpinned).contains(&"20002 b".to_owned()), "without the pin it stays");
    }

    #[test]
    fn a_pin_takes_nothing_from_others() {
        let first = next(&Plan::default(), &plain(&["a", "b"]), 0);
        let clash = next(&first, &[want("a", None, 1), want("b", Some(20000), 1)], 1);
        assert_eq!(shown(&clash), ["20000 a", "20001 b"], "b goes on where it was");
        assert!(troubles(&clash)[0].starts_with("b: 20000, which it pins, has been given to a"));
        let freed = next(&clash, &[want("b", Some(20000), 1)], 2);
        assert_eq!(shown(&freed), ["20000 a rests", "20001 b"]);
        let told = &troubles(&freed)[0];
        assert!(told.contains("was a's and rests until 2027-01-15T08:10:02Z"), "{told}");
        let rested = next(&freed, &[want("b", Some(20000), 1)], 602);
        assert_eq!(shown(&rested), ["20000 b", "20001 b rests"]);
        let twice = [want("c", Some(20003), 1), want("d", Some(20003), 1)];
        let twice = next(&Plan::default(), &twice, 0);
        assert_eq!(shown(&twice), ["20003 c"]);
        assert_eq!(troubles(&twice), ["d: 20003 is pinned by c too; pin another one"]);
    }

    #[test]
    fn several_addresses_grow_and_shrink() {
        let two = next(&Plan::default(), &[want("a", Some(20001), 2)], 0);
        assert_eq!(shown(&two), ["20000 a", "20001 a"]);
        let three = next(&two, &[want("a", Some(20001), 3)], 1);
        assert_eq!(shown(&three), ["20000 a", "20001 a", "20002 a"]);
        let one = next(&three, &[want("a", Some(20001), 1)], 2);
        assert_eq!(shown(&one), ["20000 a rests", "20001 a", "20002 a rests"]);
        let most = next(&one, &[want("a", None, 9)], 3);
        assert_eq!(shown(&most).len(), 4);
        assert!(troubles(&most)[0].contains("5 missing"), "{most:?}");
    }

    #[test]
    fn nothing_new_is_given_where_it_cannot_be_written_down() {
        let first = next(&Plan::default(), &plain(&["a"]), 0);
        let wanted = [want("a", None, 1), want("b", None, 1), want("c", Some(30000), 1)];
        let space = ports(Some(20000..=20003));
        let refused = |denial| {
            let plan = plan(&first.allocations, &wanted, &space, Grants::Denied(denial), at(1));
            assert_eq!(shown(&plan), ["20000 a", "30000 c"], "what is known and what is pinned");
            troubles(&plan).concat()
        };
        assert!(refused(Denial::ReadOnly).contains("add the line `20001 b` where"));
        assert!(refused(Denial::NoPlace).contains("set a stateDir"));
        assert!(refused(Denial::Garbled).contains("mend them"));
    }

    #[test]
    fn another_space_moves_and_a_place_of_another_kind_cannot_be_pinned() {
        let first = next(&Plan::default(), &plain(&["a"]), 0);
        let pool = Space::Pool { network: "10.9.0.0/29".parse().unwrap(), port: 50002 };
        let wanted = [want("a", None, 1), want("b", Some(20003), 1)];
        let moved = plan(&first.allocations, &wanted, &pool, Grants::Allowed, at(1));
        assert_eq!(shown(&moved), ["20000 a rests", "10.9.0.1 a"]);
        assert!(troubles(&moved)[0].contains("is not of listeners.egress"));
        let pinned = next(&Plan::default(), &[want("a", Some(20000), 1)], 0);
        let none = plan(
            &pinned.allocations,
            &[want("a", Some(20000), 1)],
            &ports(None),
            Grants::Allowed,
            at(1),
        );
        assert_eq!(shown(&none), ["20000 a"], "a pin needs no range");
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nothing_rest_for_ever() {
        let mut before = Plan::default();
        let resting = Allocation { holder: "a".into(), resting: Some(at(1_000_000)) };
        before.allocations.0.insert(Place::Port(20000), resting);
        let now = next(&before, &[], 0);
        assert_eq!(now.next, Some(at(600)));
        assert!(next(&now, &[], 600).allocations.0.is_empty());
    }

    /// One step of a life: who is wanted with which pin and number, and how much time passes before.
    fn step() -> impl Strategy<Value = (Vec<Wanted>, u64)> {
        let one = (0_u16..6, prop::option::weighted(0.2, 20000_u16..20005), 1_u16..3);
        let one = one.prop_map(|(name, pin, count)| want(&format!("shop/{name}"), pin, count));
        (prop::collection::vec(one, 0..6), 0_u64..400)
    }

    proptest! {
        #[test]
        fn whatever_comes_and_goes_an_address_is_one_apps_and_stays(
            steps in prop::collection::vec(step(), 1..20),
        ) {
            let space = ports(Some(20000..=20004));
            let mut before = Plan::default();
            // Whose an address was last, and until when it was in use.
            let mut last: BTreeMap<Place, (Holder, u64)> = BTreeMap::new();
            let mut clock = 0;
            for (mut wanted, wait) in steps {
                clock += wait;
                wanted.sort_by(|one, other| one.holder.cmp(&other.holder));
                wanted.dedup_by(|one, other| one.holder == other.holder);
                let now = plan(&before.allocations, &wanted, &space, Grants::Allowed, at(clock));
                for one in &wanted {
                    let has = |plan: &Plan| -> BTreeSet<Place> {
                        let mine = |found: &&Allocation| found.holder == one.holder && found.resting.is_none();
                        plan.allocations.0.iter().filter(|(_, found)| mine(found)).map(|(place, _)| *place).collect()
                    };
                    let (had, has) = (has(&before), has(&now));
                    let count = usize::from(one.spec.addresses);
                    prop_assert!(has.len() <= count);
                    // Who has fewer than asked for is told why.
                    prop_assert!(has.len() == count || now.problems.iter().any(|problem| problem.holder == one.holder));
                    // What was had goes only for a smaller number or for the pin.
                    let gone = had.difference(&has).count();
                    let for_pin = usize::from(one.spec.pin.is_some_and(|pin| has.contains(&pin) && !had.contains(&pin)));
                    prop_assert!(had.len() + for_pin <= count + gone && (gone == 0 || has.len() == count), "{had:?} {has:?}");
                    if let Some(pin) = one.spec.pin {
                        let told = |problem: &Problem| problem.holder == one.holder;
                        prop_assert!(has.contains(&pin) || now.problems.iter().any(told));
                    }
                }
                for (place, found) in &now.allocations.0 {
                    if found.resting.is_some() { continue }
                    prop_assert!(wanted.iter().any(|one| one.holder == found.holder));
                    if let Some((holder, until)) = last.get(place) {
                        prop_assert!(*holder == found.holder || clock - until >= REST.as_secs(), "{place} came too early");
                    }
                }
                for (place, found) in now.allocations.0.iter().filter(|(_, found)| found.resting.is_none()) {
                    last.insert(*place, (Arc::clone(&found.holder), clock));
                }
                let used = before.allocations.0.iter().filter(|(_, found)| found.resting.is_none());
                for (place, found) in used {
                    // It was in use up to this plan.
                    if last.get(place).is_some_and(|(holder, _)| *holder == found.holder) {
                        last.insert(*place, (Arc::clone(&found.holder), clock));
                    }
                }
                // The same wishes again change nothing.
                let again = plan(&now.allocations, &wanted, &space, Grants::Allowed, at(clock));
                prop_assert_eq!(&again, &now);
                before = now;
            }
        }
    }
}
